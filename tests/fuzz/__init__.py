"""Fuzz tests of a running service (target.py).

Some requests are generated from the OpenAPI description (described.py). Others are valid requests with mutated parts
and bytes (drafts.py). tests/test_fuzz.py sends a few of these requests, and `make fuzz` sends many more.
"""
