"""Every ValidationError becomes a 422 response in the contract's format, including errors that DRF raises."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings
from django.urls import path
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tests.conftest import Api

pytestmark = pytest.mark.stateless


class Inner(serializers.Serializer[Any]):
    text = serializers.CharField(max_length=3)


class Outer(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    kind = serializers.ChoiceField(["a", "b"], default="a")
    inner = Inner(many=True, default=list)
    by_key = serializers.DictField(child=serializers.IntegerField(), default=dict)

    def validate(self, data: Any) -> Any:
        if data["count"] == 13:
            raise ValidationError("an unlucky number", code="unlucky")
        return data


class StockView(APIView):
    def post(self, request: Request) -> Response:
        serializer = Outer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response({})


class RaisingView(APIView):
    error: Any = None

    def post(self, request: Request) -> Response:
        raise ValidationError(self.error)


RAISED: dict[str, tuple[Any, list[Any]]] = {
    "text": ("wrong", [("wrong", "invalid")]),
    "list": (["one", ErrorDetail("two", "odd")], [("one", "invalid"), ("two", "odd")]),
    "dict": ({"a": "one", "b": {"c": ["two"]}}, [("one", "invalid", "a"), ("two", "invalid", "b", "c")]),
    "nested": ([{}, {"a": ["one"]}], [("one", "invalid", 1, "a")]),
    "numbers": ({"a": {3: ["one"]}}, [("one", "invalid", "a", 3)]),
    "none": (None, [("Invalid input.", "invalid")]),
    "empty": ([], [("Invalid input.", "invalid")]),
}

urlpatterns = [
    path("threads", StockView.as_view()),
    *(path(f"threads/{name}", RaisingView.as_view(error=error)) for name, (error, _) in RAISED.items()),
]


@pytest.fixture(autouse=True)
def _stock_views() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__):
        yield


def item(msg: str, code: str, *loc: str | int) -> dict[str, Any]:
    return {"loc": ["body", *loc], "msg": msg, "type": f"value_error.{code}"}


@pytest.mark.parametrize("name", RAISED)
def test_stock_validation_error_is_422_in_both_shapes(api: Api, name: str) -> None:
    detail = [item(*expected) for expected in RAISED[name][1]]
    answer = api.post(f"/threads/{name}", {})
    assert (answer.status, answer.body) == (422, {"detail": detail})
    answer = api.post(f"/threads/{name}", {}, HTTP_OPENAI_BETA="assistants=v2")
    assert (answer.status, answer.body["detail"]) == (422, detail)
    assert answer.body["error"]["code"] == detail[0]["type"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, [item("This field is required.", "required", "count")]),
        ([], [item("Invalid data. Expected a dictionary, but got list.", "invalid")]),
        ({"count": 13}, [item("an unlucky number", "unlucky")]),
        (
            {"count": "x", "inner": [{"text": "abc"}, {"text": "abcd"}]},
            [
                item("A valid integer is required.", "invalid", "count"),
                item("Ensure this field has no more than 3 characters.", "max_length", "inner", 1, "text"),
            ],
        ),
        (
            {"count": 1, "kind": "\ud800", "by_key": {"\udfff": "x"}},
            [
                item('"\ufffd" is not a valid choice.', "invalid_choice", "kind"),
                item("A valid integer is required.", "invalid", "by_key", "\ufffd"),
            ],
        ),
    ],
)
def test_errors_of_a_stock_serializer_keep_their_paths(api: Api, body: Any, detail: list[Any]) -> None:
    answer = api.post("/threads", body)
    assert (answer.status, answer.body) == (422, {"detail": detail})
