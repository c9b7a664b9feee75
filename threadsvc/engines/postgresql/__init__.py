"""The engine of PostgreSQL: Django's own with its pool, made to notice a server that is away, or was."""
