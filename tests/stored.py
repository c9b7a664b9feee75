"""Read rows with the database's driver only, without the code under test."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

JSON_COLUMNS = ("metadata", "content", "attachments")
TIME_COLUMNS = ("created_at", "deleted_at")


def stored(url: str, model: str, **equal: Any) -> list[dict[str, Any]]:
    """Return the rows of a model ("thread" or "message") that have these column values, ordered by id.

    The values are converted to Python types.
    """
    read = {"sqlite": _from_sqlite, "postgresql": _from_postgresql, "mongodb": _from_mongodb}[urlsplit(url).scheme]
    return sorted(read(url, f"messages_app_{model}", equal), key=lambda row: str(row["id"]))


def tables(url: str) -> set[str]:
    """Return the names of all tables or collections, except the database's internal ones."""
    match urlsplit(url).scheme:
        case "sqlite":
            found = {row["name"] for row in _from_sqlite(url, "sqlite_master", {"type": "table"})}
        case "postgresql":
            found = {row["tablename"] for row in _from_postgresql(url, "pg_tables", {"schemaname": "public"})}
        case _:
            import pymongo

            with pymongo.MongoClient[dict[str, Any]](url) as client:
                found = set(client.get_default_database().list_collection_names()) - {"__schema__"}
    return {name for name in found if not name.startswith(("sqlite_", "system."))}


def execute(url: str, *statements: str) -> None:
    """Run SQL statements in one transaction."""
    if urlsplit(url).scheme == "sqlite":
        with closing(sqlite3.connect(_file(url))) as database, database:
            for statement in statements:
                database.execute(statement)
        return
    import psycopg

    with psycopg.connect(url) as server:
        for statement in statements:
            server.execute(statement)


def _file(url: str) -> str:
    return unquote(urlsplit(url).path[1:])


def _sql(table: str, equal: dict[str, Any], placeholder: str) -> str:
    conditions = " AND ".join(f'"{column}" = {placeholder}' for column in equal)
    return f'SELECT * FROM "{table}"' + (f" WHERE {conditions}" if conditions else "")


def _from_sqlite(url: str, table: str, equal: dict[str, Any]) -> list[dict[str, Any]]:
    def python(column: str, value: Any) -> Any:
        if value is not None and column in JSON_COLUMNS:
            return json.loads(value)
        if value is not None and column in TIME_COLUMNS:
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return value

    with closing(sqlite3.connect(_file(url))) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(_sql(table, equal, "?"), list(equal.values())).fetchall()
    return [{column: python(column, row[column]) for column in row.keys()} for row in rows]  # noqa: SIM118


def _from_postgresql(url: str, table: str, equal: dict[str, Any]) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    # The service's URL may have options that libpq rejects.
    without_options = url.partition("?")[0]
    with psycopg.connect(without_options, row_factory=dict_row) as connection:
        return connection.execute(_sql(table, equal, "%s"), list(equal.values())).fetchall()


def _from_mongodb(url: str, table: str, equal: dict[str, Any]) -> list[dict[str, Any]]:
    import pymongo

    with pymongo.MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        return [{**row, "_id": str(row["_id"])} for row in client.get_default_database()[table].find(equal)]
