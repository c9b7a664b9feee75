"""`/threads`: the Assistants API, in both of its shapes."""
