"""Django's SQLite engine, with writers of one process that take turns (docs/decisions/0002-order.md)."""
