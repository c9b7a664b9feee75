"""The domain: threads and their messages. This package does not import `threadsvc`, the rest of the project."""
