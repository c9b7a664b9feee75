"""Migrations on MongoDB that djongo ignores or cannot run. The tests define a model for them."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, NotSupportedError, connections, models
from django.db.models import CheckConstraint, Index, Q, UniqueConstraint
from django.test.utils import isolate_apps

pytestmark = pytest.mark.engine("mongodb")


@pytest.fixture
def item() -> Iterator[Any]:
    """A model whose collection exists during the test."""
    with isolate_apps("messages_app"):

        class Item(models.Model):  # noqa: DJ008
            name = models.CharField(max_length=20, unique=True)
            shop = models.CharField(max_length=20, db_index=True)
            number = models.PositiveBigIntegerField()
            flag = models.BooleanField(default=False)
            price = models.DecimalField(max_digits=12, decimal_places=4, default=Decimal(0))
            key = models.UUIDField(default=UUID(int=1))
            data = models.JSONField(default=dict)

            class Meta:
                app_label = "messages_app"
                db_table = "messages_app_item"
                constraints = [UniqueConstraint(fields=["shop", "number"], name="item_number")]
                indexes = [Index(fields=["shop", "-number"], name="item_newest")]

        with connections["threads"].schema_editor() as editor:
            editor.create_model(Item)
        yield Item
        with connections["threads"].schema_editor() as editor:
            editor.delete_model(Item)


def indexes(model: Any) -> dict[str, tuple[dict[str, int], bool]]:
    database: Any = connections["threads"].get_new_connection(connections["threads"].get_connection_params())
    found = database[model._meta.db_table].index_information()
    return {name: (dict(index["key"]), index.get("unique", False)) for name, index in found.items() if name != "_id_"}


def named_field(model: Any, field: Any, name: str) -> Any:
    field.set_attributes_from_name(name)
    field.model = model
    return field


def test_new_collection_has_constraints_and_index_directions(item: Any) -> None:
    assert indexes(item) == {
        "__primary_key__": ({"id": 1}, True),
        "name_unique": ({"name": 1}, True),
        "shop_index": ({"shop": 1}, False),
        "item_number": ({"shop": 1, "number": 1}, True),
        "item_newest": ({"shop": 1, "number": -1}, False),
    }
    rows = item.objects.using("threads")
    assert [rows.create(name=name, shop="a", number=n).pk for n, name in enumerate("xyz")] == [1, 2, 3]
    for taken in ({"name": "x", "shop": "b", "number": 9}, {"name": "w", "shop": "a", "number": 0}):
        with pytest.raises(IntegrityError):
            rows.create(**taken)


def test_booleans_decimals_uuids_and_json_keep_their_types(item: Any) -> None:
    rows = item.objects.using("threads")
    price, key, data = Decimal("12345678.9012"), UUID(int=2**100), {"a": [1, 2.5, None, True, {"b": "c"}]}
    rows.create(name="on", shop="a", number=2**62, flag=True, price=price, key=key, data=data)
    rows.create(name="off", shop="a", number=1)
    found = rows.get(flag=True)
    assert (found.name, found.number, found.price, found.key, found.data) == ("on", 2**62, price, key, data)
    assert [row.name for row in rows.filter(flag=False)] == ["off"]
    assert [row.name for row in rows.exclude(flag=True)] == ["off"]
    assert [row.name for row in rows.filter(Q(flag=True) & ~Q(number=1))] == ["on"]
    assert [row.name for row in rows.filter(price__gt=Decimal("1.5"), key=key)] == ["on"]
    assert [row.name for row in rows.filter(data=data)] == ["on"]


def test_fields_are_added_renamed_filled_and_removed(item: Any) -> None:
    rows = item.objects.using("threads")
    rows.create(name="x", shop="a", number=1)
    old = named_field(item, models.CharField(max_length=5, null=True), "colour")
    new = named_field(item, models.CharField(max_length=9, default="red"), "tint")
    with connections["threads"].schema_editor() as editor:
        editor.add_field(item, old)
        editor.alter_field(item, old, new)
    database: Any = connections["threads"].connection
    assert database["messages_app_item"].find_one({"name": "x"})["tint"] == "red"
    assert "colour" not in database["messages_app_item"].find_one({"name": "x"})
    with connections["threads"].schema_editor() as editor:
        editor.remove_field(item, new)
        editor.remove_field(item, item._meta.get_field("shop"))
    assert {"tint", "shop"} & database["messages_app_item"].find_one({"name": "x"}).keys() == set()
    assert indexes(item).keys() == {"__primary_key__", "name_unique"}


def test_constraints_and_indexes_can_be_added_or_removed_twice(item: Any) -> None:
    constraint, index = item._meta.constraints[0], item._meta.indexes[0]
    for _ in range(2):
        with connections["threads"].schema_editor() as editor:
            editor.remove_constraint(item, constraint)
            editor.remove_index(item, index)
    assert {"item_number", "item_newest"} & indexes(item).keys() == set()
    for _ in range(2):
        with connections["threads"].schema_editor() as editor:
            editor.add_constraint(item, constraint)
            editor.rename_index(item, index, Index(fields=["shop", "-number"], name="item_latest"))
    assert {"item_number", "item_latest"} <= indexes(item).keys()


def test_renamed_collection_keeps_its_sequence_of_ids(item: Any) -> None:
    item.objects.using("threads").create(name="x", shop="a", number=1)
    with connections["threads"].schema_editor() as editor:
        editor.alter_db_table(item, "messages_app_item", "messages_app_thing")
        item._meta.db_table = "messages_app_thing"
    assert item.objects.using("threads").create(name="y", shop="a", number=2).pk == 2


def test_unsupported_schema_change_is_refused(item: Any) -> None:
    refused: list[Any] = [
        lambda editor: editor.add_constraint(item, CheckConstraint(condition=Q(number__gt=0), name="c")),
        lambda editor: editor.add_constraint(item, UniqueConstraint(fields=["shop"], condition=Q(number=1), name="c")),
        lambda editor: editor.add_field(item, named_field(item, models.CharField(null=True, unique=True), "code")),
        lambda editor: editor.alter_field(
            item, item._meta.get_field("shop"), named_field(item, models.IntegerField(db_index=True), "shop")
        ),
        lambda editor: editor.execute("ALTER TABLE x ADD COLUMN y"),
    ]
    for change in refused:
        with pytest.raises(NotSupportedError), connections["threads"].schema_editor() as editor:
            change(editor)
    with pytest.raises(NotSupportedError):
        connections["threads"].schema_editor(collect_sql=True)


def test_unique_index_over_duplicates_is_an_error(item: Any) -> None:
    rows = item.objects.using("threads")
    for name in "xy":
        rows.create(name=name, shop="a", number=ord(name))
    with pytest.raises(DatabaseError), connections["threads"].schema_editor() as editor:
        editor.add_constraint(item, UniqueConstraint(fields=["shop"], name="one_shop"))
