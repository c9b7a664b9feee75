"""The operations on threads and messages that the API, the admin and the commands use."""
