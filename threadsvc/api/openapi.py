"""OpenAPI: what drf-spectacular cannot know of the contract, and the pages that show the schema."""

import functools
from pathlib import Path
from typing import Any

import yaml
from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe
from django.views.generic import TemplateView
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.serializers import PolymorphicProxySerializerExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer

COMPONENTS = Path(__file__).with_name("components.yaml")  # the parts of the document that belong to no serializer

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


def error_answer(status: str, description: str) -> dict[str, Any]:
    name = "HTTPValidationError" if status == "422" else "HTTPError"
    shapes = [{"$ref": f"#/components/schemas/{schema}"} for schema in (name, f"{name}V2")]
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
        body, parameters = operation.get("requestBody"), operation["parameters"]
        if body:
            view: Any = self.view
            body["required"] = view.action not in getattr(view, "optional_bodies", ())
            if not body["required"]:
                content = body["content"]["application/json"]
                content["schema"] = {"anyOf": [content["schema"], {"type": "null"}]}
        writes = self.method not in SAFE_METHODS
        refusals = [
            ("400", body, "The body is not UTF-8"),
            ("401", True, "Invalid API key"),
            ("403", writes, "Read-only key, or a page of another origin"),
            ("404", "{" in self.path, "Not Found"),
            ("409", any(each["name"] == "Idempotency-Key" for each in parameters), "Request in progress"),
            ("413", body, "Request body too large"),
            ("422", body or any(each["in"] == "query" for each in parameters), "Validation Error"),
            ("429", True, "Too Many Requests"),
            ("503", True, "Service Unavailable"),
            ("507", writes, "Insufficient Storage"),
        ]
        answers = operation["responses"]
        answers |= {status: error_answer(status, description) for status, applies, description in refusals if applies}
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


def with_components(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the schemas of errors, and the headers of every response."""
    own = yaml.safe_load(COMPONENTS.read_text(encoding="utf-8"))
    components = result["components"]
    components["schemas"] = dict(sorted({**components.get("schemas", {}), **own["schemas"]}.items()))
    components["headers"] = own["headers"]
    for answers in (operation["responses"] for path in result["paths"].values() for operation in path.values()):
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
    """Return the schema of this version in one format. It depends on nothing else."""
    return renderer().render(SchemaGenerator().get_schema(request=None, public=True))


@require_safe
def schema(request: HttpRequest, renderer: Any, content_type: str) -> HttpResponse:
    return HttpResponse(rendered_schema(renderer), content_type=content_type)


swagger_ui = require_safe(TemplateView.as_view(template_name="threadsvc/swagger_ui.html"))
redoc = require_safe(TemplateView.as_view(template_name="threadsvc/redoc.html"))


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
