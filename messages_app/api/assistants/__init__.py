"""The endpoints under `/threads`: the Assistants API in both of its shapes, default and v2."""
