"""Everything the API, the admin and the commands ask of threads and messages."""
