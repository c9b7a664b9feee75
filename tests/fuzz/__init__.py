"""Requests that nobody would think of: made from the API's own description (described.py), or bytes that once were good
requests (drafts.py), sent to a served process (target.py). tests/test_fuzz.py runs them; `make fuzz` runs many more."""
