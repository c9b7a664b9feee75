"""The domain: threads and the messages in them. It knows nothing of the project around it."""
