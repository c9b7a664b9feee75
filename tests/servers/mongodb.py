"""MongoDB's wire protocol, served by mongo-java-server: the real thing is not in Debian and not free software."""

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

WIRE_VERSION = "8"  # the newest that mongo-java-server knows; pymongo from 4.18 on asks for 9
# A quick start counts for more than speed later, and the machine has other things to hold.
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def programs() -> Path:
    """The directory with the jars and our class in it; made where it is missing, which takes the network once."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()[:12]
    there = CACHE / digest
    if not there.exists():
        if not (shutil.which("javac") and shutil.which("mvn")):
            install("openjdk-17-jdk-headless", "maven")
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=CACHE))
        jars = ["mvn", "--batch-mode", "--quiet", "--file", str(SOURCES[0]), "dependency:copy-dependencies"]
        run([*jars, f"-DoutputDirectory={draft}"])
        run(["javac", "-cp", f"{draft}/*", "-d", str(draft), str(SOURCES[1])])
        try:
            draft.rename(there)  # all of it or nothing
        except OSError:  # another run was faster
            shutil.rmtree(draft)
    elif not shutil.which("java"):
        install("openjdk-17-jdk-headless")
    return there


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip() or "no reason given"
        raise Unavailable(f"{command[0]} failed: {said.splitlines()[0]}")


class MongoDB(DatabaseServer):
    """Keeps data in an H2 file. It answers before it has written: being killed, it forgets what it acknowledged."""

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
        if not super().is_up():  # a driver would wait longer before it tries again
            return False
        try:
            with pymongo.MongoClient[dict[str, Any]](self.url("admin"), serverSelectionTimeoutMS=1000) as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def new_database(self) -> str:
        return self.url(self.next_name())  # the first write creates it
