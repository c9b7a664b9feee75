"""Supported databases, and the error messages for databases that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import engines
from tests.conftest import Served, manage
from tests.servers import free_port

MONGODB_DRIVERS = ("djongo", "pymongo", "bson")


@pytest.fixture
def without_mongodb_drivers(tmp_path: Path) -> dict[str, str]:
    """Return the settings for a process that cannot import MongoDB's drivers, as if they were not installed."""
    directory = tmp_path / "path"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(
        f"""
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MONGODB_DRIVERS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, NotInstalled())
"""
    )
    return {"PYTHONPATH": str(directory)}


@pytest.mark.engine("sqlite", "postgresql")
def test_sql_engines_need_no_mongodb_drivers(
    serve: Callable[..., Served], without_mongodb_drivers: dict[str, str]
) -> None:
    service = serve(**without_mongodb_drivers)
    thread = service.new_thread()
    assert service.call("POST", f"/threads/{thread}/messages", {"role": "user", "content": "Hi"}).status == 200
    assert service.call("GET", f"/threads/{thread}/messages").body["data"][0]["role"] == "user"


@pytest.mark.process
@pytest.mark.stateless
def test_missing_mongodb_drivers_are_a_one_line_error(tmp_path: Path, without_mongodb_drivers: dict[str, str]) -> None:
    settings = {**without_mongodb_drivers, "THREADS_DATABASE_URL": "mongodb://127.0.0.1/x"}
    for arguments in (["check", "--database", "threads"], ["serve"]):
        done = manage(tmp_path / "data", *arguments, **settings)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "threadsvc: THREADS_DATABASE_URL: MongoDB needs djongo5 and pymongo: pip install -r requirements.txt\n"
        )


@pytest.mark.process
@pytest.mark.stateless
def test_djangos_own_tables_cannot_be_in_mongodb(tmp_path: Path) -> None:
    done = manage(tmp_path / "data", "check", DATABASE_URL="mongodb://u:hidden@host/x")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "threadsvc: DATABASE_URL: Django's own tables need SQL; THREADS_DATABASE_URL, of the threads, may be mongodb://\n",
    )


@pytest.mark.process
@pytest.mark.stateless
@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("mongodb", "127.0.0.1:{port}: [Errno 111] Connection refused"),
        (
            "postgresql",
            'connection failed: connection to server at "127.0.0.1", port {port} failed: Connection refused',
        ),
    ],
)
def test_unreachable_server_is_a_one_line_error(tmp_path: Path, scheme: str, reason: str) -> None:
    port = free_port()
    settings = {"THREADS_DATABASE_URL": f"{scheme}://user:hidden@127.0.0.1:{port}/threads?"}
    done = manage(tmp_path / "data", "check", "--database", "default", "--database", "threads", **settings)
    assert done.returncode == 1
    problems = [line for line in done.stderr.splitlines() if "threadsvc.E001" in line]
    assert problems == [f"?: (threadsvc.E001) THREADS_DATABASE_URL: {reason.format(port=port)}"]
    assert "hidden" not in done.stdout + done.stderr
    done = manage(tmp_path / "data", "serve", PORT=str(free_port()), **settings)
    problem = f"CommandError: cannot use the database of THREADS_DATABASE_URL: {reason.format(port=port)}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", problem)


@pytest.mark.process
def test_check_passes_if_the_databases_respond(tmp_path: Path) -> None:
    aliases = ["--database", "default"] + ["--database", "threads"] * (engines.server is not None)
    done = manage(tmp_path / "data", "check", *aliases)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.process
@pytest.mark.stateless
def test_database_file_in_a_missing_directory_is_a_one_line_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none/x.db"
    for command in (["check", "--database", "threads"], ["purge"], ["migrate", "--database", "threads"]):
        done = manage(tmp_path / "data", *command, THREADS_DATABASE_URL=url)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "unable to open database file" in done.stderr
