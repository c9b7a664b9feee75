"""The front page, and the 404 for unknown paths: JSON for programs, a page with links for browsers."""

import re
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe
from rest_framework.request import Request
from rest_framework.views import APIView

from threadsvc import __version__
from threadsvc.api.errors import PathNotServed
from threadsvc.api.middleware import forbid_caching

# Resources of OpenAI's API that this service does not have.
_OPENAI_PATH = re.compile(
    r"/(?:v1/)?(?:threads/(?:[^/]+/)?(?P<of_threads>runs)|(?P<resource>assistants|audio|batches|chat|completions|"
    r"containers|embeddings|evals|files|fine_tuning|images|models|moderations|realtime|responses|uploads|"
    r"vector_stores|videos))(?:/.*)?",
    re.DOTALL,
)
_NOT_SERVED = (
    "Not Found: '{resource}' is not part of this service, which stores threads and messages. See /docs on this service "
    "for its API, and docs/from-openai.md in the threadsvc repository for the differences from OpenAI's API."
)


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """Return the front page.

    Its example commands contain the service's address from the Host header. The middleware has checked this header.
    """
    at = request.build_absolute_uri("/").removesuffix("/")
    context = {"version": __version__, "at": at, "keys_required": not settings.ALLOW_ANONYMOUS}
    return render(request, "threadsvc/front.html", context)


class UnknownPath(APIView):
    """Returns 404 for every method. If API keys are required, a request without a key gets 401."""

    http_method_names = ()
    default_response_headers: dict[str, str] = {}  # no Allow header, because no method is allowed

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Return DRF's request with an empty parser context.

        DRF's own context refers to the view and the request. It would keep both in memory after the response.
        """
        made = super().initialize_request(request, *args, **kwargs)
        made.parser_context = {}
        return made

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if resource := openai_resource(request.path_info):
            raise PathNotServed(_NOT_SERVED.format(resource=resource))
        raise Http404


_unknown_path = UnknownPath.as_view()


def unknown_path(request: HttpRequest) -> HttpResponse:
    """Return the 404 for a path that has no route: a page for browsers, and JSON for other clients.

    Paths of this API and of OpenAI's API always get JSON. The page is the same for every path and with every key, so it
    reveals nothing that needs a key.
    """
    path = request.path_info
    is_api = path == "/v1" or path.startswith(settings.API_PATHS) or openai_resource(path) is not None
    may_be_page = not is_api and request.method in ("GET", "HEAD")
    if may_be_page and request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        response = render(request, "threadsvc/404.html", status=HTTPStatus.NOT_FOUND)
    else:
        response = _unknown_path(request)
        forbid_caching(response)
    if may_be_page:
        patch_vary_headers(response, ["Accept"])
    return response


def openai_resource(path: str) -> str | None:
    """Return the OpenAI resource of a path without a route, such as `runs`, or None for any other path."""
    match = _OPENAI_PATH.fullmatch(path)
    return match and (match["of_threads"] or match["resource"])
