"""Which of its two shapes an answer has: the header that says so, and what errors have besides in the shape of v2.

Source: threads-api contract, "Two shapes of answer".
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse

from threadsvc.api.renderer import JSONRenderer


def wants_v2(meta: Mapping[str, Any]) -> bool:
    """Whether one entry of `OpenAI-Beta` is `assistants=v2`."""
    entries: str | None = meta.get("HTTP_OPENAI_BETA")
    return entries is not None and any(entry.strip(" \t").lower() == "assistants=v2" for entry in entries.split(","))


class ShapeMiddleware:
    """Tells views the shape of a request as `request.wants_v2`; puts `error` beside `detail`, whoever refused it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        is_v2 = wants_v2(request.META)
        request.wants_v2 = is_v2  # type: ignore[attr-defined]
        response = self.get_response(request)
        if is_v2 and response.status_code >= 400 and response["Content-Type"] == "application/json":
            # DRF's answers have what they were made from; a list of errors can be long.
            body = getattr(response, "data", None) or json.loads(response.content)
            error = JSONRenderer().render(error_of(body["detail"]))
            response.content = response.content.removesuffix(b"}") + b',"error":' + error + b"}"
            response["Content-Length"] = str(len(response.content))
        return response


def error_of(detail: Any) -> dict[str, Any]:
    """OpenAI's form of an error; of several, the first."""
    if isinstance(detail, str):
        message, param, code = detail, None, None
    elif detail[0]["type"] == "json_invalid":
        message, param, code = f"JSON decode error: {detail[0]['ctx']['error']}", None, "json_invalid"
    else:
        (_, *steps), message, code = detail[0]["loc"], detail[0]["msg"], detail[0]["type"]
        param = ".".join(map(str, steps)) if steps else None
        message = message if param is None else f"{param}: {message}"
    return {"message": message, "type": "invalid_request_error", "param": param, "code": code}
