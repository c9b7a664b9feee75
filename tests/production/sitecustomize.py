"""Hides packages that production does not have. Python runs this in each service process that a test starts.

`tests.conftest.environment` sets this up. The tests need these packages, but libraries of the service would load them
if they find them. That would change the tested behaviour and take a quarter of the start time.
"""

import sys

for package in ("pygments", "requests", "rich"):
    sys.modules[package] = None  # type: ignore[assignment]  # to import it raises ModuleNotFoundError
