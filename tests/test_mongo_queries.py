"""The MongoDB engine returns the same results as SQLite for the same rows and queries."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections, models
from django.db.models import Count, F, Max, Min, Q
from django.db.models.lookups import In

from messages_app.models import Message, Thread, ThreadPair
from messages_app.models.content import text_part
from messages_app.store.paging import Window, in_window
from tests import engines
from tests.rows import new_message, new_thread
from threadsvc.engines.mongodb.sql import read
from threadsvc.engines.mongodb.statements import SelectStatement

pytestmark = pytest.mark.engine("mongodb")

QUERIES = 1500 if engines.is_long else 500
START = datetime(2026, 1, 1, tzinfo=UTC)
TENANTS = ["acme", "zoo", "a.b*(", "", "50%", "under_score", "back\\slash", "new\nline", "$where", "é"]
# All runs are in lower case. On SQLite, `contains` and `startswith` ignore case, so runs that differ only in case would
# give other results than on MongoDB.
RUNS = ["run_1", "run_2", "run.1", "r(un", "[a-z]", "^$", "%", "_", "\\", "run_11", "línea\nzwei"]
ASSISTANTS = ["", "asst_A", "ASST_a", "Asst.B", "asst_b\n", "x+y", "X+Y"]
# This list contains only keys that Django's JSON lookups find on SQLite. They do not find keys with non-ASCII
# characters or quotes, and they read a key of digits as an array index.
KEYS = ["topic", "a.b", "$where", "$", "k", "with space", "key-2"]
VALUES = ["v", "V", "a.b", "100%", "under_score", "", "$ne", "é"]
SQLITE, MONGODB = "default", "queries"


def pick_metadata(rng: random.Random) -> dict[str, str]:
    return {key: rng.choice(VALUES) for key in rng.sample(KEYS, rng.randrange(4))}


def pick_time(rng: random.Random) -> datetime:
    return START + timedelta(seconds=rng.randrange(40), milliseconds=rng.choice([0, 0, 1, 999]))


def random_rows(rng: random.Random) -> tuple[list[Thread], list[Message]]:
    threads = [
        new_thread(
            START + timedelta(seconds=rng.randrange(40)),
            rng,
            tenant=rng.choice(TENANTS),
            metadata=pick_metadata(rng),
            deleted_at=rng.choice([None, None, pick_time(rng)]),
        )
        for _ in range(60)
    ]
    messages = [
        new_message(
            START + timedelta(seconds=rng.randrange(40)),
            rng,
            thread=thread,
            position=position,
            role=rng.choice(Message.Role.values),
            content=[text_part(rng.choice(TENANTS))],
            assistant_id=rng.choice(ASSISTANTS),
            run_id=rng.choice([None, *RUNS]),
            metadata=pick_metadata(rng),
            deleted_at=rng.choice([None, None, pick_time(rng)]),
        )
        for thread in threads
        for position in range(1, rng.randrange(1, 12))
    ]
    return threads, messages


@pytest.fixture(scope="module")
def stored() -> Iterator[tuple[list[Thread], list[Message]]]:
    """The rows that a SQLite database and a MongoDB database both contain. They contain no other rows."""
    settings = connections["threads"].settings_dict
    connections.databases[MONGODB] = {**settings, "NAME": f"{settings['NAME']}_queries"}
    threads, messages = random_rows(random.Random(5))
    for alias in (SQLITE, MONGODB):
        with connections[alias].schema_editor() as editor:
            editor.create_model(Thread)
            editor.create_model(Message)
        Thread.objects.using(alias).bulk_create(threads)
        Message.objects.using(alias).bulk_create(messages)
    yield threads, messages
    for alias in (SQLITE, MONGODB):
        with connections[alias].schema_editor() as editor:
            editor.delete_model(Message)
            editor.delete_model(Thread)
    connections[MONGODB].close()
    del connections.databases[MONGODB]


class QueryGenerator:
    """Generates random queries. Each query is a function that runs on the database with the given alias."""

    def __init__(self, rng: random.Random, threads: list[Thread], messages: list[Message]) -> None:
        self.rng = rng
        self.rows: dict[type[models.Model], list[Any]] = {Thread: threads, Message: messages}

    def query(self) -> tuple[str, Callable[[str], Any]]:
        """Return the description of a random query, and the query as a function."""
        rng = self.rng
        model: type[Thread | Message] = Thread if rng.random() < 0.5 else Message
        filters = [(rng.choice(["filter", "exclude"]), self.condition(model, depth=3)) for _ in range(rng.randrange(3))]
        columns = [field.attname for field in model._meta.concrete_fields]
        sortable = [column for column in columns if column not in ("metadata", "content", "attachments")]
        order = [rng.choice(["", "-"]) + column for column in rng.sample(sortable, rng.randrange(3))]
        order.append(rng.choice(["id", "-id"]))
        start = rng.choice([0, 0, 1, 7, 50])
        bounds = slice(start, rng.choice([None, start + 1, start + 20]))
        shown = rng.sample(columns, rng.randrange(1, 4))
        group = rng.choice(sortable)
        kinds = [
            "values",
            "values",
            "values",
            "rows",
            "count",
            "exists",
            "aggregate",
            "grouped",
            "counted",
            "first",
            "in",
        ]
        kind = rng.choice(kinds)

        def run(alias: str) -> Any:
            rows: Any = model.objects.using(alias)
            for method, condition in filters:
                rows = getattr(rows, method)(condition)
            rows = rows.order_by(*order)
            match kind:
                case "values":
                    return list(rows.values_list(*shown)[bounds])
                case "rows":
                    return [[getattr(row, f.attname) for f in model._meta.concrete_fields] for row in rows[bounds]]
                case "count":
                    return rows.count()
                case "counted":
                    return rows[bounds].count()
                case "exists":
                    return rows.exists()
                case "first":
                    return [row and row.pk for row in (rows.first(), rows.last())]
                case "in":
                    of = Message.objects.using(alias).filter(thread__in=rows) if model is Thread else rows
                    return list(of.order_by("id").values_list("id", flat=True))
            numbers = [Count("deleted_at"), Max("created_at"), Min("deleted_at"), Max("id")]
            if kind == "grouped":
                return sorted(rows.order_by().values_list(group).annotate(*numbers, n=Count("*")), key=str)
            return rows.aggregate(*numbers, n=Count("*"))

        return f"{model.__name__} {filters} {order} {bounds} {shown} {kind}", run

    def condition(self, model: type[Thread | Message], depth: int) -> Q:
        kind = self.rng.randrange(8) if depth else 7
        if kind < 2:
            return ~self.condition(model, depth - 1)
        if kind < 4:
            return self.condition(model, depth - 1) & self.condition(model, depth - 1)
        if kind < 6:
            return self.condition(model, depth - 1) | self.condition(model, depth - 1)
        return self.comparison(model)

    def comparison(self, model: type[Thread | Message]) -> Q:
        rng = self.rng
        row = rng.choice(self.rows[model])
        ordered = ["exact", "lt", "lte", "gt", "gte", "range", "in"]
        patterns = ["contains", "startswith", "endswith", "icontains", "istartswith", "iendswith", "iexact"]
        any_case = ["icontains", "istartswith", "iendswith", "iexact"]
        lookups = {
            Thread: {
                "id": ordered + patterns,
                "tenant": ordered + patterns,
                "object_id": ["exact", "in", "startswith"],
            },
            Message: {
                "id": ordered + patterns,
                "thread_id": [lookup for lookup in ordered if lookup != "range"],
                "position": ordered,
                "role": ordered + patterns,
                "run_id": [*ordered, *patterns, "isnull"],
                "assistant_id": ordered + any_case,
            },
        }[model] | {"created_at": ordered, "deleted_at": [*ordered, "isnull"], "metadata": ["pairs", "whole"]}
        column = rng.choice(list(lookups))
        lookup = rng.choice(lookups[column])
        value = getattr(row, column)
        if column == "metadata":
            return self.metadata_condition(lookup, value)
        if lookup == "isnull":
            return Q(**{f"{column}__isnull": rng.choice([True, False])})
        if lookup == "range":
            bounds = [value, getattr(rng.choice(self.rows[model]), column)]
            return Q(**{f"{column}__range": bounds}) if None not in bounds else Q(**{f"{column}__isnull": False})
        if lookup == "in":
            others = [getattr(other, column) for other in rng.sample(self.rows[model], rng.randrange(4))]
            return Q(**{f"{column}__in": [value, *others]})
        if value is None:
            return Q(**{column: None})
        if lookup in patterns or lookup == "startswith":
            first = 0 if column == "object_id" else rng.randrange(len(value) + 1)
            value = (
                value[first : first + rng.randrange(6)] if rng.random() < 0.8 else rng.choice(["%", "_", ".*", "\\"])
            )
            if column == "object_id" and not value.isalnum():
                value = "6"
            if lookup in any_case:
                value = rng.choice([value.upper, value.lower])() if value.isascii() else value
        return Q(**{f"{column}__{lookup}": value})

    def metadata_condition(self, lookup: str, metadata: dict[str, str]) -> Q:
        rng = self.rng
        if lookup == "whole":
            return Q(metadata=rng.choice([metadata, {}]))
        key = rng.choice(KEYS)
        suffix = rng.choice(["", "", "__isnull", "__icontains"])
        value = {"__isnull": rng.choice([True, False])}.get(suffix, metadata.get(key, rng.choice(VALUES)))
        return Q(**{f"metadata__{key}{suffix}": value})


def test_random_queries_return_the_same_as_on_sqlite(stored: tuple[list[Thread], list[Message]]) -> None:
    generator = QueryGenerator(random.Random(2026), *stored)
    equal, empty, seen = 0, 0, Counter[str]()
    for _ in range(QUERIES):
        description, run = generator.query()
        expected, found = run(SQLITE), run(MONGODB)
        assert found == expected, description
        equal += 1
        empty += expected in ([], 0, False, [None, None])
        seen[description.split()[-1]] += 1
    print(f"{equal} equal results, {empty} of them empty: {dict(seen)}")
    assert equal == QUERIES
    # Two empty results are equal even if both queries are wrong. Most results must therefore have rows.
    assert empty < equal / 2


def test_null_among_values_is_neither_equal_nor_unequal(stored: object) -> None:
    def results(alias: str) -> list[list[str]]:
        messages = Message.objects.using(alias).order_by("id")
        runs = messages.filter(role="user").order_by().values("run_id")
        assert None in [run["run_id"] for run in runs]
        conditions = [
            Q(run_id__in=runs),
            ~Q(run_id__in=runs),
            ~Q(run_id__in=runs.filter(run_id__isnull=False)),
            ~(Q(run_id__in=runs) | Q(role="assistant")),
            Q(run_id__in=["run_1", None]),
            ~Q(run_id__in=["run_1", None]),
            ~Q(run_id__in=[]),
            ~Q(run_id="run_1"),
            ~Q(deleted_at__gt=START),
            ~Q(metadata__icontains="100%"),
            Q(metadata__icontains="a.B"),
            ~Q(In(F("run_id"), runs.filter(position__gt=999))),
            ~Q(In(F("run_id"), runs)),
        ]
        return [list(messages.filter(condition).values_list("id", flat=True)) for condition in conditions]

    assert results(MONGODB) == results(SQLITE)


def test_pages_are_the_same_as_on_sqlite(stored: tuple[list[Thread], list[Message]]) -> None:
    threads, messages = stored
    rng = random.Random(7)
    for _ in range(200):
        model: Any = rng.choice([Thread, Message])
        rows: Any = threads if model is Thread else messages
        low, high = (
            rng.choice([None, tuple(getattr(rng.choice(rows), name) for name in model.objects.all().order)])
            for _ in range(2)
        )
        descending = rng.choice([True, False])
        pages = [
            sorted(row.pk for row in in_window(model.objects.using(alias), Window(low, high, descending, None)))
            for alias in (SQLITE, MONGODB)
        ]
        assert pages[0] == pages[1]


def test_rows_without_an_id_get_sequential_ids(stored: object) -> None:
    with connections[MONGODB].schema_editor() as editor:
        editor.create_model(ThreadPair)
    pairs = [ThreadPair(thread_id=f"thread_{n}", digest=str(n), created_at=START) for n in range(3)]
    ThreadPair.objects.using(MONGODB).bulk_create(pairs)
    one = ThreadPair.objects.using(MONGODB).create(thread_id="thread_9", digest="9", created_at=START)
    assert [*(pair.pk for pair in pairs), one.pk] == [1, 2, 3, 4]
    assert list(ThreadPair.objects.using(MONGODB).order_by("id").values_list("id", flat=True)) == [1, 2, 3, 4]
    with connections[MONGODB].schema_editor() as editor:
        editor.delete_model(ThreadPair)


def test_page_bounds_the_first_column_of_the_index() -> None:
    """The query of a page limits `created_at` on its own, in addition to the comparison with both cursors.

    With these limits, the server reads the index from the start of the page, not from the start of the index.
    """
    rows = in_window(Thread.objects.visible("x"), Window((START, "a"), (START, "b"), True, None))
    sql, params = rows.query.get_compiler(rows.db).as_sql()
    statement = read(sql)
    assert isinstance(statement, SelectStatement)
    # The first argument is the database for subqueries. This statement has none, so None is enough.
    found = statement.filter(None, params)  # type: ignore[arg-type]
    bounds = [each["created_at"] for each in found["$and"] if "created_at" in each]
    assert bounds == [{"$gte": START.replace(tzinfo=None)}, {"$lte": START.replace(tzinfo=None)}]
