"""HTTP policy of the API: middleware, errors, JSON in and out, OpenAPI."""
