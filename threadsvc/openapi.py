"""OpenAPI: what drf-spectacular cannot know of the contract, and the pages that show the schema."""

import functools
from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from rest_framework.renderers import BaseRenderer

ERROR_SCHEMAS = {
    "HTTPError": {
        "title": "HTTPError",
        "type": "object",
        "required": ["detail"],
        "properties": {"detail": {"title": "Detail", "type": "string"}},
    },
    "HTTPValidationError": {
        "title": "HTTPValidationError",
        "type": "object",
        "properties": {
            "detail": {"title": "Detail", "type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}
        },
    },
    "ValidationError": {
        "title": "ValidationError",
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {
                "title": "Location",
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            },
            "msg": {"title": "Message", "type": "string"},
            "type": {"title": "Error Type", "type": "string"},
        },
    },
}


def error_answer(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


class ContractSchema(AutoSchema):
    """Adds what an operation can refuse with: 404 where its path holds an id; 400, 413, 422 where it takes a body."""

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        answers = operation["responses"]
        if "requestBody" in operation:
            answers["400"] = error_answer("The body is not UTF-8", "HTTPError")
        if "{" in self.path:
            answers["404"] = error_answer("Not Found", "HTTPError")
        if "requestBody" in operation:
            answers["413"] = error_answer("Request body too large", "HTTPError")
            answers["422"] = error_answer("Validation Error", "HTTPValidationError")
        return operation


def one_prefix(endpoints: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Every path answers under `/` and `/v1` alike; the schema says that once, under `servers`."""
    return [endpoint for endpoint in endpoints if not endpoint[0].startswith("/v1/")]


def error_schemas(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    schemas = result["components"].setdefault("schemas", {})
    result["components"]["schemas"] = dict(sorted({**schemas, **ERROR_SCHEMAS}.items()))
    return result


@functools.cache
def rendered_schema(renderer: type[BaseRenderer]) -> str | bytes:
    """The schema of this version in one format; it depends on nothing else, and is made once a process."""
    return renderer().render(SchemaGenerator().get_schema(request=None, public=True))


@require_safe
def schema_yaml(request: HttpRequest) -> HttpResponse:
    return HttpResponse(rendered_schema(OpenApiYamlRenderer), content_type="application/yaml")


@require_safe
def schema_json(request: HttpRequest) -> HttpResponse:
    return HttpResponse(rendered_schema(OpenApiJsonRenderer), content_type="application/json")


@require_safe
def swagger_ui(request: HttpRequest) -> HttpResponse:
    return render(request, "threadsvc/swagger_ui.html")


@require_safe
def redoc(request: HttpRequest) -> HttpResponse:
    return render(request, "threadsvc/redoc.html")


@require_safe
@cache_control(public=True, max_age=3600)
def redoc_bundle(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_redoc_bundle(), content_type="text/javascript; charset=utf-8")


# The one thing that Redoc loads from elsewhere, an image beside its own link in the menu, and an empty one instead.
_REDOC_LOGO = "https://cdn.redoc.ly/redoc/logo-mini.svg"
_NO_LOGO = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"


@functools.cache
def _redoc_bundle() -> bytes:
    path = finders.find("drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js")
    assert isinstance(path, str), "drf-spectacular-sidecar is not installed"
    return Path(path).read_text(encoding="utf-8").replace(_REDOC_LOGO, _NO_LOGO).encode()
