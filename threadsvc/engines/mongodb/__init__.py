"""A Django database engine for MongoDB: djongo, with the parts replaced in which it loses rows or breaks on Django 5.2.

djongo (as `djongo5`) gives the shape of it: a DatabaseWrapper whose cursor takes SQL, types, exceptions, the names of
what is in the server, and the `__schema__` collection. What was measured to be wrong with it, and where that is mended:

| fault of djongo 1.3.7 | mended in |
|---|---|
| conditions after BETWEEN and in nested NOTs are dropped: wrong rows | sql.py: a grammar; what it lacks is refused |
| INSERT, ORDER BY and GROUP BY as sqlparse groups them since 0.3 are misread | sql.py: sqlparse is not used |
| `exists()`, a place in ORDER BY are not understood | sql.py: select_item, ordering |
| LIKE is an unescaped regular expression | statements.py: Like |
| more than 10,000 tokens in a bulk insert | sql.py: one regular expression splits a statement |
| the key of a new row is not given back; a round trip more for each INSERT | statements.py: InsertStatement |
| a duplicate key is no IntegrityError, a network failure no OperationalError | errors.py: database_error |
| the client is closed and used again; a new one for each thread; unsafe after a fork | base.py: process_client |
| a failed `atomic` block breaks the connection | base.py: DatabaseWrapper._rollback |
| a bare boolean in WHERE | base.py: DatabaseOperations |
| JSON is stored as text | base.py: DatabaseOperations.adapt_json_value |
| no types for JSONField, PositiveBigIntegerField and others, no values for DecimalField | base.py |
| a test database cannot be made | base.py: DatabaseCreation |
| UniqueConstraints in CREATE TABLE and directions of indexes are dropped | schema.py |
| AddField, AlterField, RemoveConstraint fail | schema.py |

What it cannot do right raises NotSupportedError: joins, DISTINCT, HAVING, expressions (so `F()` in updates and
`bulk_update`), functions (so `created_at__date`), regular expressions, ignore_conflicts, unique columns with NULLs,
constraints with conditions. `atomic` undoes nothing: `supports_transactions` is False, for callers to look at. The
server checks no foreign key, no NOT NULL and no range of numbers.
"""
