"""DRF's request and view set, for an API that speaks JSON alone: what they look for in each request, and would find the
same each time, is made once. The order of their work is DRF's."""

from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet


class JSONRequest(Request):
    """DRF's request, without its search for forms; what it has from Django's is at hand."""

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(request, *args)
        self.META, self.method = request.META, request.method

    def _not_authenticated(self) -> None:
        nobody: Any = None
        self._authenticator = self.user = self.auth = nobody

    def _load_data_and_files(self) -> None:
        body: Any = self._request
        parser: Any = self.parsers[0]  # type: ignore[index]  # there is always one
        self._data = self._full_data = parser.parse(body, self.content_type, self.parser_context)


@cache
def one_of_each(policies: tuple[type[Any], ...]) -> list[Any]:
    """The same for all requests: of these, none remembers anything of one."""
    return [policy() for policy in policies]


class JSONViewSet(ViewSet):
    """No OPTIONS, one parser, one renderer, no versions and no formats."""

    http_method_names = ["get", "head", "post", "delete"]
    request: Request
    format_kwarg = None

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> JSONRequest:
        self.action = self.action_map.get(str(request.method).lower(), "")
        context = self.get_parser_context(request)
        return JSONRequest(
            request, self.get_parsers(), self.get_authenticators(), self.get_content_negotiator(), context
        )

    def get_parsers(self) -> list[Any]:
        return one_of_each(tuple(self.parser_classes))

    def get_renderers(self) -> list[Any]:
        return one_of_each(tuple(self.renderer_classes))

    def get_authenticators(self) -> list[Any]:
        return one_of_each(tuple(self.authentication_classes))

    def get_permissions(self) -> list[Any]:
        return one_of_each(tuple(self.permission_classes))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """DRF's, but for versions and formats, of which there is one."""
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        self.perform_authentication(request)
        self.check_permissions(request)
        self.check_throttles(request)

    def answer(self, data: Any) -> HttpResponse:
        """200 with this; a Response of DRF's is a template first, which is rendered on its way out."""
        renderer = self.request.accepted_renderer
        return HttpResponse(renderer.render(data), content_type=renderer.media_type)
