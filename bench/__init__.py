"""Benchmarks. `python -m bench` (make bench) compares the service with a yardstick (bench/yardstick)."""
