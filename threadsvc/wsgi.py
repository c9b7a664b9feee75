"""The WSGI entry point, and what has to be mended before Django sees a request."""

import os
import time
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http.response import HttpResponse, HttpResponseBase, StreamingHttpResponse

from threadsvc.access.proxies import believe_proxies
from threadsvc.logs import STARTED

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "threadsvc.settings")
django.setup(set_prefix=False)


class Request(WSGIRequest):
    """Django's request, without the parameters of its media type.

    Django looks a charset up and reads RFC 2231 parameters before any view can answer, and raises on odd ones; here the
    charset is always UTF-8. Only a form with files, which the admin may get, needs its boundary.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        media_type, parameters, _ = meta.get("CONTENT_TYPE", "").partition(";")
        media_type = media_type.strip(" \t") or parameters  # parameters alone are not an empty header
        if media_type.lower() == "multipart/form-data":
            try:
                super()._set_content_type_params(meta)  # type: ignore[misc]  # not in the stubs
                return
            except ValueError:
                pass
        meta["CONTENT_TYPE"] = media_type
        self.content_type, self.content_params = media_type.lower(), {}


class Application(WSGIHandler):
    request_class = Request

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> HttpResponseBase:
        environ[STARTED] = time.perf_counter()
        believe_proxies(environ, settings.TRUSTED_PROXIES)
        response = super().__call__(environ, start_response)
        if environ["REQUEST_METHOD"] == "HEAD":  # the headers are told; gunicorn would log a warning for the body
            if isinstance(response, StreamingHttpResponse):
                response.streaming_content = ()
            elif isinstance(response, HttpResponse):
                response.content = b""
        return response


application = Application()
