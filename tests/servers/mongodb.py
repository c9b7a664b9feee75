"""mongo-java-server, which speaks MongoDB's wire protocol. MongoDB is neither in Debian nor free software."""

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

WIRE_VERSION = "8"  # the newest that mongo-java-server supports; pymongo 4.18 and later require 9
# Prefer a fast start to speed later, and leave memory to other processes.
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def programs() -> Path:
    """Return the directory of the jars and our class. If it is missing, download and compile them."""
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
            draft.rename(directory)  # atomic
        except OSError:  # another run has created it
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
    """Stores data in an H2 file. It acknowledges a write before it stores it, so a kill loses acknowledged writes."""

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
        if not super().is_up():  # a driver would wait longer between attempts
            return False
        try:
            with pymongo.MongoClient[dict[str, Any]](self.url("admin"), serverSelectionTimeoutMS=1000) as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def new_database(self) -> str:
        return self.url(self.next_name())  # the first write creates it
