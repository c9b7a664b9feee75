"""Columns that hold JSON: as text or jsonb in SQL, as what it is where the engine stores documents."""

import json
from collections.abc import Sequence
from typing import Any

import orjson
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import JSONField

from messages_app.store.engine import stores_documents


class UnicodeJSONEncoder(json.JSONEncoder):
    """JSON text as people wrote it: an e with an accent is stored as two bytes, not as six, and can be searched for."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "ensure_ascii": False, "separators": (",", ":")})


_EMPTY: dict[type, str] = {list: "[]", dict: "{}"}


def json_texts(values: Sequence[Any]) -> list[str]:
    """What UnicodeJSONEncoder makes of each document, sooner. There are no numbers in them."""
    try:
        return [orjson.dumps(value).decode() if value else _EMPTY[type(value)] for value in values]
    except (KeyError, TypeError):  # text that is none, whole numbers of more than 64 bits: as ever
        return list(map(UnicodeJSONEncoder().encode, values))


def json_values(texts: Sequence[str]) -> list[Any]:
    """The documents of these texts, as Python reads them."""
    try:
        return [orjson.loads(text) for text in texts]
    except orjson.JSONDecodeError:
        return list(map(json.loads, texts))


class DocumentField(JSONField):
    """A JSON array, or an object whose keys are fixed.

    Where the column is text, orjson writes it; and reads it everywhere. Python's own encoder, which writes the same,
    has the last word on what orjson refuses.
    """

    takes_documents = True  # the engine need not make text of them

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"encoder": UnicodeJSONEncoder, **kwargs})

    def get_default(self) -> Any:
        """Return an empty array where no default is declared, as Django returns "" for text."""
        return super().get_default() if self.has_default() else []

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        if isinstance(value, list | dict) and not connection.features.has_native_json_field:
            return json_texts([value])[0]
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        if isinstance(value, list | dict):
            return value
        if value in ("[]", "{}"):  # most of them: no files, no metadata
            return [] if value == "[]" else {}
        if isinstance(value, str):
            try:
                return orjson.loads(value)
            except orjson.JSONDecodeError:
                pass
        return super().from_db_value(value, expression, connection)


class PairsField(DocumentField):
    """A JSON object from any text to text. In documents [{"k": key, "v": value}, ...], in the order of the object:

    no key is then read as a path or an operator, and one index finds any pair (MongoDB's attribute pattern).
    """

    stores_pairs = True

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        if isinstance(value, dict) and stores_documents(connection):
            return [{"k": key, "v": text} for key, text in value.items()]
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        if isinstance(value, list):
            return {pair["k"]: pair["v"] for pair in value}
        return super().from_db_value(value, expression, connection)
