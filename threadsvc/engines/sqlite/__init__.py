"""Django's SQLite engine with a queue of writers (docs/decisions/0002-order.md)."""
