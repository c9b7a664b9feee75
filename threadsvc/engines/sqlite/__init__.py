"""Django's SQLite engine, with writers that take turns (docs/decisions/0002-order.md)."""
