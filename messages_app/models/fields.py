"""Model fields for JSON. Each engine chooses its stored form (`connection.ops.adapt_document`, `adapt_pairs`)."""

import json
from collections.abc import Sequence
from typing import Any

import orjson
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import JSONField


class UnicodeJSONEncoder(json.JSONEncoder):
    """Encodes compact JSON. Non-ASCII letters are not escaped, so that search finds them and they need less space."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "ensure_ascii": False, "separators": (",", ":")})


def json_values(texts: Sequence[str]) -> list[Any]:
    """Return the decoded values of these JSON texts."""
    try:
        return [orjson.loads(text) for text in texts]
    except orjson.JSONDecodeError:
        return list(map(json.loads, texts))


class DocumentField(JSONField):
    """A JSON array or object. The engine returns it as a document or as JSON text."""

    takes_documents = True  # the MongoDB engine then passes documents on without converting them to text

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"encoder": UnicodeJSONEncoder, **kwargs})

    def get_default(self) -> Any:
        """Return the declared default, or an empty array. Django would return None, which the columns do not allow."""
        return super().get_default() if self.has_default() else []

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        if isinstance(value, list | dict):
            return connection.ops.adapt_document(value, self.encoder)  # type: ignore[attr-defined]
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        if isinstance(value, list | dict):
            return value
        if value in ("[]", "{}"):  # the most frequent values: no files, no metadata
            return [] if value == "[]" else {}
        if isinstance(value, str):
            try:
                return orjson.loads(value)
            except orjson.JSONDecodeError:
                pass
        return super().from_db_value(value, expression, connection)


class PairsField(DocumentField):
    """A JSON object whose values are strings, with any keys.

    An engine may store it as [{"k": key, "v": value}, ...].
    """

    stores_pairs = True

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        if isinstance(value, dict):
            return connection.ops.adapt_pairs(value, self.encoder)  # type: ignore[attr-defined]
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        if isinstance(value, list):
            return {pair["k"]: pair["v"] for pair in value}
        return super().from_db_value(value, expression, connection)
