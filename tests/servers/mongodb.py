"""mongo-java-server, a Java program that implements MongoDB's wire protocol.

The tests use it because MongoDB itself is neither in Debian nor free software.
"""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from tests.servers import DatabaseServer, Unavailable, install

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "mongodb"
SOURCES = (HERE / "pom.xml", HERE / "Launch.java")

# The newest wire version that mongo-java-server supports. pymongo 4.18 and later require version 9.
WIRE_VERSION = "8"
# With these options, Java starts fast and uses little memory, but long tests run more slowly.
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def programs() -> Path:
    """Return the directory with the jars and our compiled class. If it is missing, download and compile them."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()[:12]
    directory = CACHE / digest
    if not directory.exists():
        if not (shutil.which("javac") and shutil.which("mvn")):
            install("openjdk-17-jdk-headless", "maven")
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=CACHE))
        jars = ["mvn", "--batch-mode", "--quiet", "--file", str(SOURCES[0]), "dependency:copy-dependencies"]
        run([*jars, f"-DoutputDirectory={draft}"])
        run(["javac", "-cp", f"{draft}/*", "-d", str(draft), str(SOURCES[1])])
        try:
            # Renaming is atomic, so other runs never see an incomplete directory.
            draft.rename(directory)
        except OSError:  # another run has created the directory in the meantime
            shutil.rmtree(draft)
    elif not shutil.which("java"):
        install("openjdk-17-jdk-headless")
    return directory


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        output = (done.stdout + done.stderr).strip() or "no reason given"
        raise Unavailable(f"{command[0]} failed: {output.splitlines()[0]}")


class MongoDB(DatabaseServer):
    """mongo-java-server with an H2 file. It acknowledges writes before it stores them, so a kill can lose them."""

    def prepare(self) -> None:
        self.programs = programs()

    def command(self) -> list[str]:
        path = f"{self.programs}:{self.programs}/*"
        return [
            "java",
            *JAVA_OPTIONS,
            "-cp",
            path,
            "Launch",
            str(self.directory / "data"),
            str(self.port),
            WIRE_VERSION,
        ]

    def url(self, database: str) -> str:
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def is_up(self) -> bool:
        # Try a plain connection first, because pymongo would wait longer before it retries.
        if not super().is_up():
            return False
        try:
            with pymongo.MongoClient[dict[str, Any]](self.url("admin"), serverSelectionTimeoutMS=1000) as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def new_database(self) -> str:
        # MongoDB creates the database when a test first writes to it.
        return self.url(self.next_name())
