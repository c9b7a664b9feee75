"""Django's PostgreSQL engine and its pool, which detect a server that is down or was restarted."""
