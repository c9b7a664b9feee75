"""OpenAPI: the parts of the document that drf-spectacular cannot derive, and the pages that show the document."""

import functools
import re
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

from threadsvc.api.code_samples import Sample, code_samples
from threadsvc.api.json import UNREADABLE_BODY
from threadsvc.api.middleware import openai_error

COMPONENTS = Path(__file__).with_name("components.yaml")  # parts of the document that belong to no serializer

PLACES = ["path", "query", "header"]  # the order of an operation's parameters

OPENAI_BETA = OpenApiParameter(
    "OpenAI-Beta",
    str,
    OpenApiParameter.HEADER,
    description="`assistants=v2` selects the shape of OpenAI's Assistants v2: the schemas whose names end in V2.",
    examples=[
        OpenApiExample("default", summary="The default shape", value=""),
        OpenApiExample("v2", summary="The shape of Assistants v2", value="assistants=v2"),
    ],
)

# The project's errors by status: the description in the document, and the example texts by name. An operation adds its
# own examples of 404 and 422.
DOCUMENTED_ERRORS: dict[str, tuple[str, dict[str, str]]] = {
    "400": ("The body is not UTF-8", {"NotUTF8": UNREADABLE_BODY}),
    "401": ("Invalid API key", {"InvalidAPIKey": "Invalid API key"}),
    "403": (
        "Read-only key, or a page of another origin",
        {"ReadOnlyKey": "Read-only key", "OriginNotAllowed": "Origin not allowed"},
    ),
    "404": ("Not Found", {}),
    "409": ("Request in progress", {"RequestInProgress": "Request in progress"}),
    "413": ("Request body too large", {"RequestBodyTooLarge": "Request body too large"}),
    "415": ("Unsupported Content-Encoding", {"UnsupportedEncoding": "Unsupported Content-Encoding"}),
    "422": ("Validation Error", {}),
    "429": ("Too Many Requests", {"TooManyRequests": "Too Many Requests"}),
    "503": ("Service Unavailable", {"ServiceUnavailable": "Service Unavailable"}),
    "507": ("Insufficient Storage", {"InsufficientStorage": "Insufficient Storage"}),
}


def in_both_shapes(status: str, name: str, summary: str, detail: Any) -> dict[str, Any]:
    """Return two examples of an error: in the default shape, and in the v2 shape, which adds `error`."""
    default = {"detail": detail}
    v2 = {**default, "error": openai_error(int(status), detail)}
    return {
        name: {"summary": summary, "value": default},
        f"{name}V2": {"summary": f"{summary} (assistants=v2)", "value": v2},
    }


# Every operation refers to these examples.
EXAMPLES: dict[str, dict[str, Any]] = {
    status: {
        key: value for name, text in texts.items() for key, value in in_both_shapes(status, name, text, text).items()
    }
    for status, (_, texts) in DOCUMENTED_ERRORS.items()
}


def error_answer(status: str, of_operation: list[OpenApiExample]) -> dict[str, Any]:
    """Return the OpenAPI response for this status, with the shared examples and the examples of the operation."""
    name = "HTTPValidationError" if status == "422" else "HTTPError"
    shapes = [{"$ref": f"#/components/schemas/{schema}"} for schema in (name, f"{name}V2")]
    examples = {key: {"$ref": f"#/components/examples/{key}"} for key in EXAMPLES[status]}
    for example in of_operation:
        if example.status_codes == [status]:
            examples |= in_both_shapes(status, example.name, str(example.summary), example.value["detail"])
    content = {"schema": {"anyOf": shapes}, "examples": examples}
    return {"description": DOCUMENTED_ERRORS[status][0], "content": {"application/json": content}}


class BearerKeyScheme(OpenApiAuthenticationExtension):
    target_class = "threadsvc.access.authentication.BearerKeyAuthentication"
    name = "APIKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        description = "An API key, `tsk_...`. A service can allow requests without a key."
        return {"type": "http", "scheme": "bearer", "description": description}


class ContractSchema(AutoSchema):
    """Adds the header that selects the shape, the code samples, and the errors of each operation.

    In `optional_bodies`, a view lists the actions whose body may be absent or null.
    """

    def get_auth(self) -> list[dict[str, list[str]]]:
        return [*super().get_auth(), {}]  # {} means no key, for services that allow anonymous use

    def get_override_parameters(self) -> list[Any]:
        return [OPENAI_BETA]

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False  # a list response is an object (a page) with its own serializer, not an array

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        body, parameters = operation.get("requestBody"), operation["parameters"]
        parameters.sort(key=lambda each: (PLACES.index(each["in"]), self.path.find(each["name"])))
        operation["x-codeSamples"] = code_samples(self.sample(operation.pop("x-sample"), body, parameters))
        if body:
            view: Any = self.view
            body["required"] = view.action not in getattr(view, "optional_bodies", ())
            if not body["required"]:
                content = body["content"]["application/json"]
                content["schema"] = {"anyOf": [content["schema"], {"type": "null"}]}
        writes = self.method not in SAFE_METHODS
        refusals = {
            "400": body,
            "401": True,
            "403": writes,
            "404": "{" in self.path,
            "409": any(each["name"] == "Idempotency-Key" for each in parameters),
            "413": body,
            "415": body,
            "422": body or any(each["in"] == "query" for each in parameters),
            "429": True,
            "503": True,
            "507": writes,
        }
        answers, examples = operation["responses"], self.get_examples()
        answers |= {status: error_answer(status, examples) for status, applies in refusals.items() if applies}
        operation["responses"] = dict(sorted(answers.items()))
        return operation

    def sample(self, words: dict[str, Any], body: Any, parameters: list[dict[str, Any]]) -> Sample:
        """Return the request of the code samples.

        It has the first example of the body and of each id in the path.
        """
        examples = {each["name"]: each["schema"].get("examples") for each in parameters}
        ids = {name: examples[name][0] for name in re.findall(r"{(\w+)}", self.path)}
        bodies = body["content"]["application/json"]["examples"].values() if body else [{"value": None}]
        return Sample(self.method, self.path, ids, words["query"], next(iter(bodies))["value"], words["sdk"])


class EitherShape(PolymorphicProxySerializerExtension):
    """Uses anyOf instead of oneOf, because a body may be valid in both shapes."""

    priority = 1

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"anyOf": super().map_serializer(auto_schema, direction)["oneOf"]}


def one_prefix(endpoints: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Leave out the paths under /v1.

    They are the same as the paths under /, so the schema lists both prefixes as `servers`.
    """
    return [endpoint for endpoint in endpoints if not endpoint[0].startswith("/v1/")]


def with_components(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the schemas and examples of errors, and the headers of every response."""
    own = yaml.safe_load(COMPONENTS.read_text(encoding="utf-8"))
    components = result["components"]
    components["schemas"] = dict(sorted({**components.get("schemas", {}), **own["schemas"]}.items()))
    components["headers"] = own["headers"]
    components["examples"] = {name: example for of_status in EXAMPLES.values() for name, example in of_status.items()}
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
    """Return the schema in one format. Cached, because it is the same for every request."""
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


# Redoc loads one image from another server: the logo beside its link in the menu. Replace it with an empty image.
_REDOC_LOGO = "https://cdn.redoc.ly/redoc/logo-mini.svg"
_NO_LOGO = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"


@functools.cache
def _redoc_bundle() -> bytes:
    path = finders.find("drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js")
    assert isinstance(path, str), "drf-spectacular-sidecar is not installed"
    return Path(path).read_text(encoding="utf-8").replace(_REDOC_LOGO, _NO_LOGO).encode()
