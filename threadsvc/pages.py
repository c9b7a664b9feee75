"""The front page: what this service is, where its parts are, and a first conversation to copy into a terminal."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from threadsvc import __version__


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """Its commands call this service by the address that the page was asked for at (a host that is allowed)."""
    at = request.build_absolute_uri("/").removesuffix("/")
    return render(request, "threadsvc/front.html", {"version": __version__, "at": at})
