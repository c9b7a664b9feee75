"""A Django database engine for MongoDB: djongo, without the parts that lose rows or fail on Django 5.2.

djongo (as `djongo5`) provides a DatabaseWrapper whose cursor accepts SQL, the types, the exceptions, the introspection
and the `__schema__` collection. This engine fixes the following faults, which were observed:

| fault of djongo 1.3.7 | fixed in |
|---|---|
| conditions after BETWEEN and in nested NOTs are dropped: wrong rows | sql.py: a parser that refuses unknown SQL |
| INSERT, ORDER BY and GROUP BY are misread with sqlparse 0.3 or later | sql.py: sqlparse is not used |
| `exists()` and a number in ORDER BY are not supported | sql.py: select_item, ordering |
| LIKE is an unescaped regular expression | statements.py: Like |
| a bulk insert cannot have more than 10,000 tokens | sql.py: one regular expression reads the tokens |
| the key of a new row is not returned, and each INSERT needs another round trip | statements.py: InsertStatement |
| a duplicate key raises no IntegrityError, and a network failure no OperationalError | errors.py: database_error |
| clients are created for each thread, used after they are closed, and unsafe after a fork | base.py: process_client |
| a failed `atomic` block breaks the connection | base.py: DatabaseWrapper._rollback |
| a bare boolean in WHERE is not supported | base.py: DatabaseOperations |
| JSON is stored as text | base.py: DatabaseOperations.adapt_json_value |
| JSONField, PositiveBigIntegerField and others have no column type | base.py: DatabaseWrapper.data_types |
| values of DecimalField are not converted back to Decimal | base.py: to_decimal |
| a test database cannot be created | base.py: DatabaseCreation |
| UniqueConstraints in CREATE TABLE and index directions are dropped | schema.py |
| AddField, AlterField, RemoveConstraint fail | schema.py |

Unsupported features raise NotSupportedError: joins, DISTINCT, HAVING, expressions (hence `F()` in updates and
`bulk_update`), functions (hence `created_at__date`), regular expressions, ignore_conflicts, unique columns with NULLs,
constraints with conditions, many-to-many fields. `atomic` does not roll back, so callers check `supports_transactions`,
which is False. The server does not check foreign keys, NOT NULL or number ranges.
"""
