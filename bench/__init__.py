"""Programs that measure. `python -m bench` (make bench) compares the service with a yardstick (yardstick/)."""
