"""The WSGI entry point, and what has to be mended before Django sees a request."""

import os
import time
from io import BytesIO
from typing import IO, Any
from wsgiref.types import StartResponse, WSGIEnvironment

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http.response import HttpResponse, HttpResponseBase, StreamingHttpResponse

from threadsvc.access import BODILESS_METHODS, is_unmeasured
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
        if is_unmeasured(environ) and environ["REQUEST_METHOD"] not in BODILESS_METHODS:
            measure_chunked_body(environ, limit=settings.MAX_THREAD_BODY_BYTES)
        response = super().__call__(environ, start_response)
        if environ["REQUEST_METHOD"] == "HEAD":  # the headers are told; gunicorn would log a warning for the body
            if isinstance(response, StreamingHttpResponse):
                response.streaming_content = ()
            elif isinstance(response, HttpResponse):
                response.content = b""
        return response


def measure_chunked_body(environ: WSGIEnvironment, limit: int) -> None:
    """Reads a body that came without a length, so that Django, which takes such a body for an empty one, sees it all.

    Reads no more than one byte over `limit`: that is enough for the 413. Where the server does not promise that the
    input ends with the body, nothing is read, and views answer 411.
    """
    if not environ.get("wsgi.input_terminated"):
        return
    body = read_up_to(environ["wsgi.input"], limit + 1)
    environ["wsgi.input"] = BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))


def read_up_to(stream: IO[bytes], limit: int) -> bytes:
    pieces, missing = [], limit
    while missing and (piece := stream.read(min(missing, 65536))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


application = Application()
