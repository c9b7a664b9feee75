"""Hides packages that production does not have. Python runs this module in each service process that a test starts.

`tests.conftest.environment` puts this directory on the PYTHONPATH. The packages are installed, because the tests
themselves need them. If they were not hidden, the service's libraries would load them too. Loading them would change
the tested behaviour and take a quarter of the service's start time.
"""

import sys

for package in ("pygments", "requests", "rich"):
    sys.modules[package] = None  # type: ignore[assignment]  # an import then raises ModuleNotFoundError
