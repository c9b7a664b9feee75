"""Hides packages that production does not have. Python runs this module in each service process that a test starts.

`tests.conftest.environment` puts this directory on the PYTHONPATH. The tests themselves need these packages. The
service's libraries would load the packages if they were available. Loading them would change the tested
behaviour and take a quarter of the start time.
"""

import sys

for package in ("pygments", "requests", "rich"):
    sys.modules[package] = None  # type: ignore[assignment]  # an import then raises ModuleNotFoundError
