"""The WSGI entry point, with changes to how Django handles requests."""

import os
import time
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import django
from django.conf import settings
from django.core.cache import close_caches
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.http.response import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.module_loading import import_string

from threadsvc.access.proxies import believe_proxies
from threadsvc.observability.logs import STARTED

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "threadsvc.settings")
django.setup(set_prefix=False)

# Disconnect receivers that do unnecessary work for each request. `reset_queries` empties a log of queries that the
# service does not keep. `close_old_connections` also runs at the end of each request, which is enough. `close_caches`
# closes caches, but the service has none.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_caches)


class Request(WSGIRequest):
    """Django's request, without the parameters of its media type.

    Django looks up the charset and parses RFC 2231 parameters before any view can respond, and raises an exception for
    invalid ones. Here the charset is always UTF-8. Only a form with files needs its boundary, and only the admin may
    get such a form.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        media_type, parameters, _ = meta.get("CONTENT_TYPE", "").partition(";")
        # For a header with only parameters, such as `;charset=utf-8`, use the parameters as the media type. An empty
        # media type would mean that the header is missing.
        media_type = media_type.strip(" \t") or parameters
        if media_type.lower() == "multipart/form-data":
            try:
                super()._set_content_type_params(meta)  # type: ignore[misc]  # not in the stubs
                return
            except ValueError:
                pass
        meta["CONTENT_TYPE"] = media_type
        self.content_type, self.content_params = media_type.lower(), {}


class PageHandler(WSGIHandler):
    """Handles pages, the admin, static files and probes."""

    request_class = Request


class APIHandler(WSGIHandler):
    """Handles the API, without the features that only pages need: cookies, files, URL prefixes."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> HttpResponseBase:
        request = Request(environ)
        response: Any = self._middleware_chain(request)
        response._resource_closers.append(request.close)
        start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
        return response  # type: ignore[no-any-return]

    def load_middleware(self, is_async: bool = False) -> None:
        hooks: list[Any] = []  # empty, because no API middleware has process_view or similar methods
        self._view_middleware = self._template_response_middleware = self._exception_middleware = hooks
        chain: Any = convert_exception_to_response(self._get_response)  # type: ignore[attr-defined]  # not in the stubs
        for path in reversed(settings.API_MIDDLEWARE):
            chain = convert_exception_to_response(import_string(path)(chain))
        self._middleware_chain = chain


class Application:
    """Dispatches a request to the handler of the API or to the handler of pages."""

    def __init__(self) -> None:
        self.page, self.api = PageHandler(), APIHandler()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> HttpResponseBase:
        environ[STARTED] = time.perf_counter()
        believe_proxies(environ, settings.TRUSTED_PROXIES)
        handler = self.api if environ.get("PATH_INFO", "").startswith(settings.API_PATHS) else self.page
        response = handler(environ, start_response)
        if environ["REQUEST_METHOD"] == "HEAD":  # keep only the headers, because gunicorn would warn about a body
            if isinstance(response, StreamingHttpResponse):
                response.streaming_content = ()
            elif isinstance(response, HttpResponse):
                response.content = b""
        return response


application = Application()
