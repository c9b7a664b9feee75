"""The three measured operations, with plain database drivers. Each engine has a class.

YARDSTICK_DATABASE_URL selects the database. On SQLite, YARDSTICK_TURNS selects how writers wait for each other:

- `queue`: they wait for a lock between threads and a `flock` between processes
- `polling`: they wait in SQLite's busy handler, which polls

The part `http` measures both and uses the faster one.
"""

import json
import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_UN, flock
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

SHOWN = "_id, id, created_at, thread_id, role, content, assistant_id, run_id, attachments, metadata"
THREAD = "SELECT 1 FROM messages_app_thread WHERE id = ? AND deleted_at IS NULL"
INSERT = """
INSERT INTO messages_app_message (id, _id, thread_id, position, role, content, attachments, assistant_id, run_id,
                                  metadata, created_at, deleted_at)
VALUES (?, ?, ?, COALESCE((SELECT MAX(position) FROM messages_app_message WHERE thread_id = ?), 0) + 1, ?, ?, ?, ?,
        NULL, ?, ?, NULL)
"""
MESSAGE = f"SELECT {SHOWN} FROM messages_app_message WHERE id = ? AND thread_id = ? AND deleted_at IS NULL"
NEWEST = f"""
SELECT {SHOWN} FROM messages_app_message WHERE thread_id = ? AND deleted_at IS NULL ORDER BY position DESC LIMIT ?
"""

Row = tuple[Any, ...]
Shown = dict[str, Any]


class Storage(ABC):
    def __init__(self, url: str) -> None:
        self.url, self.local = url, threading.local()

    @abstractmethod
    def append(self, message: Shown, at: datetime) -> bool:
        """Store a message durably at the end of its thread. Return False if the thread does not exist."""

    @abstractmethod
    def message(self, thread_id: str, message_id: str) -> Shown: ...

    @abstractmethod
    def newest(self, thread_id: str, limit: int) -> list[Shown]: ...


def shown(row: Row, seconds: Callable[[Any], int], parsed: Callable[[Any], Any]) -> Shown:
    object_id, message_id, created_at, thread_id, role, content, assistant_id, run_id, attachments, metadata = row
    return {
        "_id": object_id,
        "id": message_id,
        "object": "thread.message",
        "created_at": seconds(created_at),
        "thread_id": thread_id,
        "role": role,
        "content": parsed(content),
        "assistant_id": assistant_id,
        "run_id": run_id or "",
        "file_ids": [attachment["file_id"] for attachment in parsed(attachments)],
        "metadata": parsed(metadata),
    }


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Queue:
    """Admits one writer at a time, among all threads and processes."""

    def __init__(self, path: str) -> None:
        self.path, self.threads = path, threading.Lock()

    @cached_property
    def file(self) -> IO[bytes]:
        # Opened on first use, after the fork, because processes that inherit an open file share its `flock`.
        return Path(self.path).open("ab")

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self.threads:
            flock(self.file, LOCK_EX)
            try:
                yield
            finally:
                flock(self.file, LOCK_UN)


class SQLite(Storage):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.path = unquote(urlsplit(url).path[1:])
        queue = Queue(f"{self.path}.yardstick")
        self.turn = queue.turn if os.environ.get("YARDSTICK_TURNS") != "polling" else nullcontext

    @property
    def connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def append(self, message: Shown, at: datetime) -> bool:
        connection, thread_id = self.connection, message["thread_id"]
        content = as_json(message["content"])
        ids = (message["id"], message["_id"], thread_id, thread_id)
        values = (*ids, message["role"], content, "[]", "", "{}", str(at.replace(tzinfo=None)))
        with self.turn():
            connection.execute("BEGIN IMMEDIATE")
            try:
                exists = connection.execute(THREAD, (thread_id,)).fetchone() is not None
                if exists:
                    connection.execute(INSERT, values)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        return exists

    def message(self, thread_id: str, message_id: str) -> Shown:
        return self.shown(self.connection.execute(MESSAGE, (message_id, thread_id)).fetchone())

    def newest(self, thread_id: str, limit: int) -> list[Shown]:
        return [self.shown(row) for row in self.connection.execute(NEWEST, (thread_id, limit))]

    def shown(self, row: Row) -> Shown:
        return shown(row, self.seconds, json.loads)

    def seconds(self, text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


class PostgreSQL(Storage):
    thread = THREAD.replace("?", "%s") + " FOR NO KEY UPDATE"
    insert, one, many = (statement.replace("?", "%s") for statement in (INSERT, MESSAGE, NEWEST))

    @property
    def connection(self) -> Any:
        import psycopg

        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = psycopg.connect(self.url, autocommit=True)
        return connection

    def append(self, message: Shown, at: datetime) -> bool:
        connection, thread_id = self.connection, message["thread_id"]
        content = as_json(message["content"])
        ids = (message["id"], message["_id"], thread_id, thread_id)
        with connection.transaction():
            exists = connection.execute(self.thread, (thread_id,)).fetchone() is not None
            if exists:
                connection.execute(self.insert, (*ids, message["role"], content, "[]", "", "{}", at))
        return exists

    def message(self, thread_id: str, message_id: str) -> Shown:
        return self.shown(self.connection.execute(self.one, (message_id, thread_id)).fetchone())

    def newest(self, thread_id: str, limit: int) -> list[Shown]:
        return [self.shown(row) for row in self.connection.execute(self.many, (thread_id, limit))]

    def shown(self, row: Row) -> Shown:
        return shown(row, lambda at: int(at.timestamp()), lambda parsed: parsed)


class MongoDB(Storage):
    """Uses no transaction.

    If two writers choose the same position, the unique index rejects one of the inserts. That writer then retries with
    the next position.
    """

    @cached_property
    def database(self) -> Any:
        from pymongo import MongoClient

        from threadsvc.engines.mongodb.url import mongodb_entry

        # The service's function sets the same write concern as for the service: majority, journaled.
        entry = mongodb_entry("YARDSTICK_DATABASE_URL", self.url)
        # Created on first use, after the fork. The client's pool serves all threads.
        return MongoClient(**entry["CLIENT"])[entry["NAME"]]

    def append(self, message: Shown, at: datetime) -> bool:
        from bson import ObjectId
        from pymongo.errors import DuplicateKeyError

        thread_id, messages = message["thread_id"], self.database.messages_app_message
        if self.database.messages_app_thread.find_one({"id": thread_id, "deleted_at": None}, {"id": 1}) is None:
            return False
        while True:
            last = messages.find_one({"thread_id": thread_id}, {"position": 1}, sort=[("position", -1)])
            row = {
                "_id": ObjectId(message["_id"]),
                "id": message["id"],
                "thread_id": thread_id,
                "position": last["position"] + 1 if last else 1,
                "role": message["role"],
                "content": message["content"],
                "attachments": [],
                "assistant_id": "",
                "run_id": None,
                "metadata": [],
                "created_at": at,
                "deleted_at": None,
            }
            try:
                messages.insert_one(row)
            except DuplicateKeyError:
                continue
            return True

    def message(self, thread_id: str, message_id: str) -> Shown:
        found = self.database.messages_app_message.find_one(
            {"id": message_id, "thread_id": thread_id, "deleted_at": None}
        )
        return self.shown(found)

    def newest(self, thread_id: str, limit: int) -> list[Shown]:
        query = {"thread_id": thread_id, "deleted_at": None}
        found = self.database.messages_app_message.find(query, sort=[("position", -1)], limit=limit)
        return [self.shown(row) for row in found]

    def shown(self, row: Shown) -> Shown:
        columns = [row[column] for column in SHOWN.split(", ")]
        return {
            **shown(tuple(columns), lambda at: int(at.replace(tzinfo=UTC).timestamp()), lambda parsed: parsed),
            "_id": str(row["_id"]),
            "metadata": {pair["k"]: pair["v"] for pair in row["metadata"]},
        }


ENGINES: dict[str, type[Storage]] = {"sqlite": SQLite, "postgresql": PostgreSQL, "mongodb": MongoDB}


def storage_of(url: str) -> Storage:
    return ENGINES[urlsplit(url).scheme](url)


storage = storage_of(os.environ["YARDSTICK_DATABASE_URL"])
