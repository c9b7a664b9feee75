"""What Python runs at the start of each process of the service that a test starts (`tests.conftest.environment`).

In production these packages are not installed; tests need them. Libraries of the service load them where they are
found, which changes what is tested and takes a quarter of the time of a start.
"""

import sys

for package in ("pygments", "requests", "rich"):
    sys.modules[package] = None  # type: ignore[assignment]  # to import it raises ModuleNotFoundError
