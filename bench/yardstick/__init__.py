"""The yardstick: bare DRF views on a database driver. It shows the best result of a hand-tuned endpoint on this stack.

It uses the service's tables and indexes. Its responses are the same, and its writes are equally durable. It has no
validation, middleware, ORM, tenants, API keys or error handling.
"""
