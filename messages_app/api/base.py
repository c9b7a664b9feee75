"""Our base classes on top of Django REST Framework (DRF).

Each docstring names the part of DRF that the class replaces, and the reason. Only `Faults`, which extends DRF's
ValidationError, is in another module: `errors.py`.

The API accepts and returns only JSON, so it does not use DRF's HTML forms, format suffixes and versions. Fields and
serializers hold no request data, so all requests share one instance of each serializer class.
"""

from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from rest_framework import serializers
from rest_framework.fields import Field, empty
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from messages_app.api.errors import EXTRA, NOT_A_DICT, NULL, REQUIRED, Fault, Faults

# Views


class JSONRequest(Request):
    """Replaces two parts of DRF's Request: the reading of the body, and the parser context.

    DRF first looks for an HTML form, which this API does not accept. That search takes 3 % of the CPU time of a create.
    DRF's parser context refers to the request and the view, which creates a reference cycle (see
    `JSONViewSet.dispatch`).
    """

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(request, *args)
        self.parser_context: dict[str, Any] = {}
        # Set here, because DRF finds these attributes with __getattr__, which takes 2 % of the time of a retrieve.
        self.META, self.method = request.META, request.method

    def _load_data_and_files(self) -> None:
        body: Any = self._request
        parser: Any = self.parsers[0]  # type: ignore[index]  # the list is never empty
        self._data = self._full_data = parser.parse(body, self.content_type, {"request": body})


class JSONViewSet(ViewSet):
    """Replaces DRF's ViewSet, without OPTIONS, versions and format suffixes.

    It leaves no reference cycle after a request.
    """

    http_method_names = ["get", "head", "post", "delete"]
    request: Request
    format_kwarg = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Return the response, and clear the view.

        DRF stores bound methods on the view, so the view refers to itself. This cycle would keep the body, its parsed
        value and the response in memory until a full garbage collection.
        """
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            vars(self).clear()

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> JSONRequest:
        self.action = self.action_map.get(str(request.method).lower(), "")
        return JSONRequest(request, self.get_parsers(), self.get_authenticators(), self.get_content_negotiator())

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Run DRF's checks in DRF's order, but skip versions and format suffixes.

        In DRF, these two take 3 % of the time of a retrieve.
        """
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        self.perform_authentication(request)
        self.check_permissions(request)
        self.check_throttles(request)

    def answer(self, data: Any) -> HttpResponse:
        """Return a rendered 200 response with this data.

        It is not DRF's Response, which is rendered only after the view has returned. Until then, a Response keeps the
        view and the request in memory.
        """
        renderer = self.request.accepted_renderer
        return HttpResponse(renderer.render(data), content_type=renderer.media_type)


# Fields


class DescribedField(Field[Any, Any, Any, Any]):
    """A field that declares its own OpenAPI schema.

    The schema replaces the one that drf-spectacular guesses from a DRF field. Keys of the `schema` argument override
    the keys of the class's schema. The title of a field in a body is derived from its name.
    """

    def __init__(self, schema: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.words = schema or {}
        super().__init__(**kwargs)

    def bind(self, field_name: str, parent: Any) -> None:
        super().bind(field_name, parent)
        if "title" not in self.words and not isinstance(parent, QuerySerializer):
            self.words = {"title": field_name.replace("_", " ").title(), **self.words}

    @property
    def schema(self) -> dict[str, Any]:
        return {**self.words}


class DescribedFieldExtension(OpenApiSerializerFieldExtension):
    target_class = DescribedField
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        in_body = isinstance(self.target.parent, BodySerializer)
        schema: dict[str, Any] = self.target.schema_in_body if in_body else self.target.schema
        return schema


class WireField(DescribedField):
    """A value that clients send. Replaces DRF's validation, which coerces JSON types and has other error messages.

    `to_internal_value` returns the value to store, or raises Faults with all errors of the value, in order. An optional
    field treats null as absent and returns its default.
    """

    def __init__(self, *, required: bool = True, default: Any = None, **kwargs: Any) -> None:
        super().__init__(**({} if required else {"default": default}), required=required, **kwargs)

    def run_validation(self, data: Any = empty) -> Any:
        if data is None or data is empty:
            if self.required:
                raise Faults([Fault(REQUIRED if data is empty else NULL)])
            return self.get_default()
        return self.to_internal_value(data)

    @property
    def schema_in_body(self) -> dict[str, Any]:
        """The schema of the field in a JSON body. It allows null if the field is optional."""
        schema = self.schema
        if self.required:
            return schema
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
        if "type" in schema:
            schema["type"] = [schema["type"], "null"]
        return schema


class ShownField(DescribedField):
    """A value in a response, shown as it is stored.

    `show` replaces DRF's `to_representation`, which looks up the attribute again for each row.
    """

    @property
    def show(self) -> Callable[[Any], Any]:
        """The function that gets the value from a row."""
        return attrgetter(str(self.source))


def read_keys(fields: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the validated values by field name, and all errors in the order of the fields."""
    values, faults = {}, []
    for name, field in fields.items():
        try:
            values[name] = field.run_validation(data.get(name, empty))
        except Faults as error:
            faults += [fault.under(name) for fault in error.detail]
    return values, faults


def read_object(fields: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Return the validated values of a JSON object that has these keys and no others.

    Raises Faults with the errors of the fields, then an error for each extra key.
    """
    if not isinstance(data, dict):
        raise Faults([Fault(NOT_A_DICT)])
    values, faults = read_keys(fields, data)
    faults += [Fault(EXTRA, (key,)) for key in sorted(data.keys() - fields.keys())]
    if faults:
        raise Faults(faults)
    return values


# Serializers


class WireSerializer(serializers.Serializer[Any]):
    """The base class of request and response serializers.

    Each class has one instance, which all requests share (`instance_of`).

    DRF copies all fields for each new instance. An instance per request would take 24 % of the CPU time of a create.
    """


@cache
def instance_of(serializer_class: type[WireSerializer]) -> Any:
    """Return the shared instance of the class."""
    return serializer_class()


class WireSerializerExtension(OpenApiSerializerExtension):
    target_class = WireSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        schema.pop("description", None)  # omit the class's docstring, which is for programmers
        return {**schema, "additionalProperties": False} if isinstance(self.target, BodySerializer) else schema


class RequestSerializer(WireSerializer):
    """Validates one part of a request. `validated` replaces DRF's `is_valid`, `errors` and `validated_data`."""

    @classmethod
    def validated(cls, data: Any) -> dict[str, Any]:
        """Return the validated values of this data. Raises Faults (422)."""
        values: dict[str, Any] = instance_of(cls).run_validation(data)
        return values


class BodySerializer(RequestSerializer):
    """A JSON object with these fields and no others.

    Replaces DRF's validation, because DRF ignores unknown keys. Its errors also have no order and no params, which the
    API's responses need.
    """

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        if data is None or data is empty:
            raise Faults([Fault(REQUIRED)])
        return self.validate(read_object(self.fields, data))

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values after checks that concern several fields. Each value is already valid. Raises Faults."""
        return values


class QuerySerializer(RequestSerializer):
    """The parameters of a query string.

    The last value of a repeated parameter counts, and unknown parameters are ignored.

    Replaces DRF's validation, because its errors have no order and no params, which the API's responses need.
    """

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        values, faults = read_keys(self.fields, data)
        if faults:
            raise Faults(faults, root="query")
        return values


class ResponseSerializer(WireSerializer):
    """Renders a row, page or file of a response.

    `shown` replaces DRF's `data`, which needs a serializer for each row.
    """

    @classmethod
    def shown(cls, value: Any) -> dict[str, Any]:
        """Return the JSON value of this row, page or file."""
        return {name: show(value) for name, show in shows_of(cls)}

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return self.shown(instance)


@cache
def shows_of(serializer_class: type[ResponseSerializer]) -> list[tuple[str, Callable[[Any], Any]]]:
    return [(name, show_of(field)) for name, field in instance_of(serializer_class).fields.items()]


def show_of(field: Any) -> Callable[[Any], Any]:
    """Return the function that gets the value of this field from the row or page."""
    if isinstance(field, serializers.ListSerializer):
        item: Any = type(field.child)
        rows = attrgetter(str(field.source))
        return lambda page: [item.shown(row) for row in rows(page)]
    show: Callable[[Any], Any] = field.show
    return show
