"""The HTTP API: requests, responses, views."""
