"""Run a command with its own database server: `python -m tests.servers ENGINE COMMAND...`

The command gets the URL of a new database on that server in THREADS_DATABASE_URL. SQLite needs no server. The exit
status is the command's exit status.
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
