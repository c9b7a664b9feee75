"""Applies migrations to collections and indexes.

Every step is idempotent, so an interrupted migration can run again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymongo
from django.db import NotSupportedError
from django.db.models import Index, Model, UniqueConstraint
from djongo import schema
from pymongo.collection import Collection
from pymongo.errors import CollectionInvalid, OperationFailure

from threadsvc.engines.mongodb.statements import SCHEMA_COLLECTION, Document

PRIMARY_KEY = "__primary_key__"  # djongo's name for the index of the primary key

# The time-out for a change to all documents. It replaces the time-out for requests.
MIGRATION_SECONDS = 24 * 3600

INDEX_NOT_FOUND = 27
NAMESPACE_NOT_FOUND = 26


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """Changes collections and indexes. Collections have no columns, so most changes of fields do nothing.

    An index with a condition is created without the condition. It is larger, but finds the same rows. There are no
    foreign keys or CHECKs.
    """

    def __init__(self, connection: Any, collect_sql: bool = False, atomic: bool = True) -> None:
        if collect_sql:
            raise NotSupportedError("migrations of MongoDB have no SQL to show")
        super().__init__(connection, collect_sql, atomic)

    def execute(self, sql: Any, params: Any = ()) -> None:
        raise NotSupportedError(f"MongoDB: no such change of the schema: {sql}")

    @contextmanager
    def at_length(self) -> Iterator[None]:
        with self.connection.errors(), pymongo.timeout(MIGRATION_SECONDS):
            yield

    def collection(self, model: type[Model]) -> Collection[Document]:
        self.connection.ensure_connection()
        collection: Collection[Document] = self.connection.connection[model._meta.db_table]
        return collection

    # Collections

    def create_model(self, model: type[Model]) -> None:
        if model._meta.local_many_to_many:
            raise NotSupportedError(f"MongoDB: {model} has a ManyToManyField, which needs joins")
        collection = self.collection(model)
        with self.at_length():
            with suppress(CollectionInvalid):  # an interrupted migration has already created it
                collection.database.create_collection(collection.name)
            if model._meta.auto_field is not None:
                start = {"$setOnInsert": {"auto": {"field_names": [model._meta.auto_field.column], "seq": 0}}}
                collection.database[SCHEMA_COLLECTION].update_one({"name": collection.name}, start, upsert=True)
        for field in model._meta.local_concrete_fields:
            self.index_field(model, field)
        for fields in model._meta.unique_together:
            self.add_constraint(model, UniqueConstraint(fields=fields, name="_".join([collection.name, *fields])))
        for constraint in model._meta.constraints:
            self.add_constraint(model, constraint)
        for index in model._meta.indexes:
            self.add_index(model, index)

    def delete_model(self, model: type[Model]) -> None:
        for field in model._meta.local_many_to_many:
            self.remove_field(model, field)
        collection = self.collection(model)
        with self.at_length():
            collection.drop()
            collection.database[SCHEMA_COLLECTION].delete_one({"name": collection.name})

    def alter_db_table(self, model: type[Model], old_db_table: str, new_db_table: str) -> None:
        if old_db_table != new_db_table:
            self.connection.ensure_connection()
            database = self.connection.connection
            with self.at_length():
                if old_db_table in database.list_collection_names():
                    database[old_db_table].rename(new_db_table)
                database[SCHEMA_COLLECTION].update_one({"name": old_db_table}, {"$set": {"name": new_db_table}})

    # Fields

    def add_field(self, model: type[Model], field: Any) -> None:
        if field.many_to_many:
            raise NotSupportedError(f"MongoDB: {field} needs joins")
        if field.column is not None:
            missing = {field.column: {"$exists": False}}
            with self.at_length():
                self.collection(model).update_many(missing, {"$set": {field.column: self.effective_default(field)}})
            self.index_field(model, field)

    def remove_field(self, model: type[Model], field: Any) -> None:
        if field.column is not None:
            for name, information in self.indexes(model):
                if field.column in [column for column, _ in information["key"]]:
                    self.drop_index(model, name)
            with self.at_length():
                self.collection(model).update_many({}, {"$unset": {field.column: ""}})

    def alter_field(self, model: type[Model], old_field: Any, new_field: Any, strict: bool = False) -> None:
        old_type, new_type = (field.db_type(self.connection) for field in (old_field, new_field))
        same = old_type == new_type and old_field.primary_key == new_field.primary_key
        if not same or is_indexed(old_field) != is_indexed(new_field):
            raise NotSupportedError(f"MongoDB: {new_field} cannot be changed in its type, key or index")
        if new_type is None:
            return
        collection = self.collection(model)
        with self.at_length():
            if old_field.column != new_field.column and old_field.column:
                collection.update_many({}, {"$rename": {old_field.column: new_field.column}})
            if old_field.null and not new_field.null:
                default = {"$set": {new_field.column: self.effective_default(new_field)}}
                collection.update_many({new_field.column: None}, default)

    # Indexes

    def index_field(self, model: type[Model], field: Any) -> None:
        if field.column in (None, "_id"):
            return
        if field.unique:
            if field.null:
                raise NotSupportedError(f"MongoDB: {field} cannot be unique and have several NULLs")
            name = PRIMARY_KEY if field.primary_key else f"{field.column}_unique"
            self.create_index(model, name, [(field.column, pymongo.ASCENDING)], unique=True)
        elif field.db_index:
            self.create_index(model, f"{field.column}_index", [(field.column, pymongo.ASCENDING)])

    def add_index(self, model: type[Model], index: Index) -> None:
        if index.contains_expressions or index.include or type(index) is not Index:
            raise NotSupportedError(f"MongoDB: no such index: {index!r}")
        keys = [(field(model, name).column, -1 if order else 1) for name, order in index.fields_orders]
        if all(key != keys for key in self.keys(model)):  # the server refuses a second index on the same keys
            self.create_index(model, index.name, keys)

    def remove_index(self, model: type[Model], index: Index) -> None:
        self.drop_index(model, index.name)

    def add_constraint(self, model: type[Model], constraint: Any) -> None:
        plain = isinstance(constraint, UniqueConstraint) and not (
            constraint.contains_expressions
            or constraint.condition
            or constraint.include  # type: ignore[attr-defined]  # not in the stubs
            or constraint.deferrable
            or constraint.nulls_distinct is not None
        )
        if not plain:
            raise NotSupportedError(f"MongoDB: no such constraint: {constraint!r}")
        fields = [field(model, name) for name in constraint.fields]
        if any(field.null for field in fields):
            raise NotSupportedError(f"MongoDB: {constraint!r} cannot have several NULLs")
        self.create_index(model, constraint.name, [(field.column, pymongo.ASCENDING) for field in fields], unique=True)

    def remove_constraint(self, model: type[Model], constraint: Any) -> None:
        self.drop_index(model, constraint.name)

    def alter_unique_together(self, model: type[Model], old_unique_together: Any, new_unique_together: Any) -> None:
        if set(map(tuple, old_unique_together)) != set(map(tuple, new_unique_together)):
            raise NotSupportedError("MongoDB: unique_together cannot be changed; use a UniqueConstraint")

    def create_index(self, model: type[Model], name: str, keys: list[tuple[str, int]], unique: bool = False) -> None:
        with self.at_length():
            self.collection(model).create_index(keys, name=name, unique=unique)

    def drop_index(self, model: type[Model], name: str) -> None:
        with self.at_length():
            try:
                self.collection(model).drop_index(name)
            except OperationFailure as error:
                if error.code not in (INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND):
                    raise

    def indexes(self, model: type[Model]) -> Iterator[tuple[str, Any]]:
        with self.at_length():
            yield from self.collection(model).index_information().items()

    def keys(self, model: type[Model]) -> list[list[tuple[str, int]]]:
        return [[tuple(key) for key in information["key"]] for _, information in self.indexes(model)]


def field(model: type[Model], name: str) -> Any:
    return model._meta.get_field(name)


def is_indexed(field: Any) -> tuple[bool, bool]:
    return field.unique, field.db_index
