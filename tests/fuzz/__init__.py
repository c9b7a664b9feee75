"""Fuzzing of a running service (target.py).

Requests are generated from the API's description (described.py), or are valid requests with mutated parts and bytes
(drafts.py). tests/test_fuzz.py sends some of them, and `make fuzz` sends many more.
"""
