"""Run a command with its own database server: `python -m tests.servers ENGINE COMMAND...`

THREADS_DATABASE_URL is the URL of a new database on that server; sqlite needs no server. Exits with the command's
status.
"""

import os
import subprocess
import sys

from tests.engines import start


def main(engine: str, *command: str) -> int:
    server = start(engine)
    if server is None:
        return subprocess.call(command)
    try:
        return subprocess.call(command, env={**os.environ, "THREADS_DATABASE_URL": server.new_database()})
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
