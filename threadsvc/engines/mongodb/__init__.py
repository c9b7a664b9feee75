"""A Django database engine for MongoDB: djongo, without the parts that lose rows or fail on Django 5.2.

djongo (as `djongo5`) provides the frame: a DatabaseWrapper whose cursor takes SQL, the types, the exceptions, the
introspection and the `__schema__` collection. Its measured faults, and where this engine fixes them:

| fault of djongo 1.3.7 | fixed in |
|---|---|
| conditions after BETWEEN and in nested NOTs are dropped: wrong rows | sql.py: a grammar, which refuses anything else |
| INSERT, ORDER BY and GROUP BY are misread with sqlparse 0.3 or later | sql.py: sqlparse is not used |
| `exists()` and a number in ORDER BY are not supported | sql.py: select_item, ordering |
| LIKE is an unescaped regular expression | statements.py: Like |
| more than 10,000 tokens in a bulk insert | sql.py: one regular expression reads the tokens |
| the key of a new row is not returned; each INSERT needs another round trip | statements.py: InsertStatement |
| a duplicate key is no IntegrityError, a network failure no OperationalError | errors.py: database_error |
| the client is closed and used again, created for each thread, and unsafe after a fork | base.py: process_client |
| a failed `atomic` block breaks the connection | base.py: DatabaseWrapper._rollback |
| a bare boolean in WHERE | base.py: DatabaseOperations |
| JSON is stored as text | base.py: DatabaseOperations.adapt_json_value |
| no types for JSONField, PositiveBigIntegerField and others, no values for DecimalField | base.py |
| a test database cannot be created | base.py: DatabaseCreation |
| UniqueConstraints in CREATE TABLE and directions of indexes are dropped | schema.py |
| AddField, AlterField, RemoveConstraint fail | schema.py |

Unsupported features raise NotSupportedError: joins, DISTINCT, HAVING, expressions (hence `F()` in updates and
`bulk_update`), functions (hence `created_at__date`), regular expressions, ignore_conflicts, unique columns with NULLs,
constraints with conditions, many-to-many fields. `atomic` rolls nothing back: callers check `supports_transactions`,
which is False. The server checks no foreign keys, NOT NULL or ranges of numbers.
"""
