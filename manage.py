#!/usr/bin/env python
"""Command line of threadsvc: serve, migrate, seed, createsuperuser, check and the rest of Django's commands."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from threadsvc.engines.base import error_reason

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "threadsvc.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"threadsvc: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("threadsvc: interrupted\n")
        sys.exit(130)  # as the shell says it of Ctrl-C
    except OperationalError as error:  # a database that does not answer, whatever the command wanted of it
        sys.exit(f"threadsvc: a database cannot be used: {error_reason(error)}")
