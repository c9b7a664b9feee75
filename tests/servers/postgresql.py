"""Debian's PostgreSQL, with production durability and little memory."""

import os
import pwd
import shutil
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg

from tests.servers import DatabaseServer, Unavailable, install, last_line

CONFIGURATION = "/etc/postgresql-common/createcluster.d/threadsvc-tests.conf"


def find_programs() -> Path | None:
    """Return the directory with the newest installed initdb and postgres, or None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def install_programs() -> Path:
    # This file keeps Debian's package from creating a database cluster and starting a server.
    configuration = Path(CONFIGURATION)
    if not os.geteuid():
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text("create_main_cluster = false\n")
    install("postgresql")
    if programs := find_programs():
        return programs
    raise Unavailable("Debian's postgresql was installed, but initdb is not in /usr/lib/postgresql")


class PostgreSQL(DatabaseServer):
    """PostgreSQL with fsync on, because tests check that no acknowledged write is lost."""

    # SIGINT requests a fast shutdown. After SIGTERM, PostgreSQL would wait until all clients disconnect.
    stop_signal = signal.SIGINT
    # PostgreSQL refuses to run as root.
    user = None if os.geteuid() else "postgres"

    def prepare(self) -> None:
        self.programs = find_programs() or install_programs()
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        initdb = [str(self.programs / "initdb"), f"--pgdata={self.directory / 'data'}", *arguments]
        done = subprocess.run(self.as_user(*initdb), cwd=self.directory, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"initdb failed: {last_line(done.stderr)}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "max_connections": "200",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.directory / "data"), *options]

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def is_up(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def new_database(self) -> str:
        name = self.next_name()
        with closing(psycopg.connect(self.url("postgres"), autocommit=True)) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)
