"""The front page: what this service is, where its parts are, and a first conversation to copy into a terminal.

And what stands where there is no page.
"""

from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from rest_framework.request import Request
from rest_framework.views import APIView

from threadsvc import __version__


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """Its commands call this service by the address that the page was asked for at (a host that is allowed)."""
    at = request.build_absolute_uri("/").removesuffix("/")
    context = {"version": __version__, "at": at, "keys_required": not settings.ALLOW_ANONYMOUS}
    return render(request, "threadsvc/front.html", context)


class UnknownPath(APIView):
    """404 for every method; where keys are required, to those alone who have one."""

    http_method_names = ()
    default_response_headers: dict[str, str] = {}  # no Allow: nothing is

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """DRF's, without the parser's context: that refers to the view and the request, and keeps both in memory."""
        made = super().initialize_request(request, *args, **kwargs)
        made.parser_context = {}
        return made

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise Http404
