"""OpenAPI: what drf-spectacular cannot know of the contract, and the pages that show the schema."""

import functools
from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.serializers import PolymorphicProxySerializerExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer

_ERROR = {
    "title": "Error",
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {
        "message": {"title": "Message", "type": "string"},
        "type": {"title": "Type", "type": "string", "enum": ["invalid_request_error"]},
        "param": {"title": "Param", "type": ["string", "null"]},
        "code": {"title": "Code", "type": ["string", "null"]},
    },
}


def error_schemas(name: str, detail: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """An error's body in both shapes."""
    schema = {"title": name, "type": "object", **keys, "properties": {"detail": {"title": "Detail", **detail}}}
    v2 = {**schema, "title": f"{name}V2", "required": ["detail", "error"]}
    v2["properties"] = {**schema["properties"], "error": {"$ref": "#/components/schemas/Error"}}
    return {name: schema, f"{name}V2": v2}


ERROR_SCHEMAS = {
    "Error": _ERROR,
    **error_schemas("HTTPError", {"type": "string"}, required=["detail"]),
    **error_schemas(
        "HTTPValidationError", {"type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}
    ),
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

OPENAI_BETA = OpenApiParameter(
    "OpenAI-Beta",
    str,
    OpenApiParameter.HEADER,
    description="`assistants=v2` for the shape of OpenAI's Assistants v2 (the schemas whose names end in V2).",
    examples=[
        OpenApiExample("default", summary="The default shape", value=""),
        OpenApiExample("v2", summary="The shape of Assistants v2", value="assistants=v2"),
    ],
)


def error_answer(description: str, schema: str) -> dict[str, Any]:
    shapes = [{"$ref": f"#/components/schemas/{name}"} for name in (schema, f"{schema}V2")]
    return {"description": description, "content": {"application/json": {"schema": {"anyOf": shapes}}}}


class BearerKeyScheme(OpenApiAuthenticationExtension):
    target_class = "threadsvc.access.authentication.BearerKeyAuthentication"
    name = "APIKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        description = "An API key, `tsk_...`. A service may be set up to ask for none."
        return {"type": "http", "scheme": "bearer", "description": description}


class ContractSchema(AutoSchema):
    """Adds the header that chooses the shape, and what an operation can refuse with.

    401, 429 and 503 everywhere; 403 and 507 where it writes; 404 where its path holds an id; 400 and 413 where it takes
    a body; 409 where it takes an idempotency key; 422 where it takes a body or a query. A body may only be left out, or
    be null, in the actions that the view names in `optional_bodies`.
    """

    def get_auth(self) -> list[dict[str, list[str]]]:
        return [*super().get_auth(), {}]  # where anonymous use is allowed

    def get_override_parameters(self) -> list[Any]:
        return [OPENAI_BETA]

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False  # a page is an object, which its serializer describes

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        answers = operation["responses"]
        answers["401"] = error_answer("Invalid API key", "HTTPError")
        answers["429"] = error_answer("Too Many Requests", "HTTPError")
        answers["503"] = error_answer("Service Unavailable", "HTTPError")
        if self.method not in SAFE_METHODS:
            answers["403"] = error_answer("Read-only key, or a page of another origin", "HTTPError")
            answers["507"] = error_answer("Insufficient Storage", "HTTPError")
        if "requestBody" in operation:
            view: Any = self.view
            operation["requestBody"]["required"] = view.action not in getattr(view, "optional_bodies", ())
            if not operation["requestBody"]["required"]:
                content = operation["requestBody"]["content"]["application/json"]
                content["schema"] = {"anyOf": [content["schema"], {"type": "null"}]}
            answers["400"] = error_answer("The body is not UTF-8", "HTTPError")
        if "{" in self.path:
            answers["404"] = error_answer("Not Found", "HTTPError")
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation["parameters"]):
            answers["409"] = error_answer("Request in progress", "HTTPError")
        if "requestBody" in operation:
            answers["413"] = error_answer("Request body too large", "HTTPError")
        if "requestBody" in operation or any(parameter["in"] == "query" for parameter in operation["parameters"]):
            answers["422"] = error_answer("Validation Error", "HTTPValidationError")
        operation["responses"] = dict(sorted(answers.items()))
        return operation


class EitherShape(PolymorphicProxySerializerExtension):
    """anyOf instead of oneOf: a body may be sound in both shapes."""

    priority = 1

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"anyOf": super().map_serializer(auto_schema, direction)["oneOf"]}


def one_prefix(endpoints: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Every path answers under `/` and `/v1` alike; the schema says that once, under `servers`."""
    return [endpoint for endpoint in endpoints if not endpoint[0].startswith("/v1/")]


def with_error_schemas(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    schemas = result["components"].setdefault("schemas", {})
    result["components"]["schemas"] = dict(sorted({**schemas, **ERROR_SCHEMAS}.items()))
    return result


HEADERS = {
    "RequestId": {
        "description": "Names this answer in the service's log: the request's own x-request-id, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    },
    "RetryAfter": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWWAuthenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string", "enum": ["Bearer"]},
    },
    "IdempotentReplayed": {
        "description": "There where this is the answer of an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


def with_headers(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Which headers the answers of every operation have."""
    result["components"]["headers"] = HEADERS
    for operations in result["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            for status, answer in answers.items():
                named = {"x-request-id": "RequestId"}
                if status in ("409", "429", "503"):
                    named["Retry-After"] = "RetryAfter"
                if status == "401":
                    named["WWW-Authenticate"] = "WWWAuthenticate"
                if status == "200" and "409" in answers:
                    named["Idempotent-Replayed"] = "IdempotentReplayed"
                answer["headers"] = {name: {"$ref": f"#/components/headers/{header}"} for name, header in named.items()}
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
