"""The best that a hand-tuned endpoint on the same stack could do: bare DRF views over a database driver.

It uses the tables and indexes of the service, gives the same responses, and its writes are as durable. It has no
validation, middleware, ORM, tenants, API keys or error handling.
"""
