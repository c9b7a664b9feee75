"""An invalid value in the environment stops every command with a one-line error that names the setting."""

import os
import runpy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured

from tests.conftest import ROOT, environment, free_port, manage

pytestmark = pytest.mark.stateless

BAD_VALUES: list[tuple[dict[str, str], str]] = [
    ({"PORT": "0"}, "PORT: '0' is not valid. Use a whole number from 1 to 65535."),
    ({"PORT": "http"}, "PORT: 'http' is not valid. Use a whole number from 1 to 65535."),
    ({"WEB_CONCURRENCY": "-1"}, "WEB_CONCURRENCY: '-1' is not valid. Use a whole number from 1 to 256."),
    ({"THREADSVC_DEBUG": "yes"}, "THREADSVC_DEBUG: 'yes' is not valid. Use 0 or 1."),
    (
        {"THREADSVC_LOG_LEVEL": "loud"},
        "THREADSVC_LOG_LEVEL: 'loud' is not valid. Use one of DEBUG, INFO, WARNING, ERROR.",
    ),
    ({"THREADSVC_LOG_FORMAT": "xml"}, "THREADSVC_LOG_FORMAT: 'xml' is not valid. Use one of json, text."),
    (
        {"THREADSVC_METRICS_PORT": "x"},
        "THREADSVC_METRICS_PORT: 'x' is not valid. Use a whole number from 0 to 65535.",
    ),
    ({"PORT": "9", "THREADSVC_METRICS_PORT": "9"}, "THREADSVC_METRICS_PORT: 9 is also PORT. Use another port."),
    (
        {"THREADSVC_MAX_BODY_BYTES": "1"},
        "THREADSVC_MAX_BODY_BYTES: '1' is not valid. Use a whole number from 1024 to 1073741824.",
    ),
    ({"THREADSVC_ALLOW_ANONYMOUS": "true"}, "THREADSVC_ALLOW_ANONYMOUS: 'true' is not valid. Use 0 or 1."),
    (
        {"THREADSVC_RATE_LIMIT": "0/s"},
        "is not a rate. Use a whole number from 1 to 999999 with /s, /min or /h, such as 600/min.",
    ),
    ({"THREADSVC_RATE_LIMIT": "10/day"}, "THREADSVC_RATE_LIMIT: '10/day' is not a rate. Use a whole number from 1 to"),
    ({"THREADSVC_SECRET_KEY_FILE": "/no/such"}, "cannot read /no/such: No such file or directory."),
    (
        {"THREADSVC_SECRET_KEY": "a", "THREADSVC_SECRET_KEY_FILE": "b"},
        "THREADSVC_SECRET_KEY and THREADSVC_SECRET_KEY_FILE are both set. Set only one.",
    ),
    (
        {"THREADSVC_TRUSTED_ORIGINS": "app.example"},
        "THREADSVC_TRUSTED_ORIGINS: 'app.example' is not an origin. Use http(s)://host or http(s)://host:port.",
    ),
    ({"THREADSVC_TRUSTED_ORIGINS": "https://app.example/"}, "'https://app.example/' is not an origin."),
    ({"THREADSVC_CORS_ORIGINS": "*"}, "THREADSVC_CORS_ORIGINS: '*' is not an origin. Use http(s)://host or"),
    (
        {"THREADSVC_TRUSTED_PROXIES": "127.0.0.1,nginx"},
        "THREADSVC_TRUSTED_PROXIES: 'nginx' is neither an address nor a network such as 10.0.0.0/8.",
    ),
    (
        {"THREADSVC_TRUSTED_PROXIES": "0.0.0.0/0"},
        "THREADSVC_TRUSTED_PROXIES: '0.0.0.0/0' matches every client, or none. List the proxies' addresses.",
    ),
    (
        {"THREADSVC_ALLOWED_HOSTS": ","},
        "THREADSVC_ALLOWED_HOSTS names no host, and every request would be refused. List at least one.",
    ),
    ({"PORT": "1" * 5000}, "Use a whole number from 1 to 65535."),
    ({"DATABASE_URL": "sqlite:////x.db?timeout=abc"}, "the one option of sqlite:/// is ?timeout=SECONDS"),
    ({"DATABASE_URL": "sqlite:////x.db?timeout=-1"}, "the one option of sqlite:/// is ?timeout=SECONDS"),
    ({"DATABASE_URL": "sqlite:////x.db?foo=1"}, "the one option of sqlite:/// is ?timeout=SECONDS"),
    ({"DATABASE_URL": "sqlite:////x%00.db"}, "no file can have that name"),
    ({"DATABASE_URL": "mongodb://user:hidden@host/x"}, "DATABASE_URL: Django's own tables need SQL"),
    ({"THREADS_DATABASE_URL": "mysql://host/x"}, "THREADS_DATABASE_URL: 'mysql' is not a database scheme"),
    ({"DATABASE_URL": "sqlite://"}, "an in-memory database is lost with its process"),
    ({"DATABASE_URL": "postgresql://host:port/x"}, "not a database URL that can be read"),
    ({"DATABASE_URL": "postgresql://host/x?foo=hidden"}, "DATABASE_URL: 'foo' is no option of postgresql://"),
    (
        {"DATABASE_URL": "postgresql://host/x?prepared_statements=no"},
        "prepared_statements= of postgresql:// takes 0 or",
    ),
    ({"DATABASE_URL": "postgresql://host/x?password=hidden"}, "'password' is no option of postgresql://"),
    (
        {"DATABASE_URL": "postgresql://host/x?sslmode=a&sslmode=b"},
        "'sslmode' is no option of postgresql://, or given",
    ),
    ({"DATABASE_URL": "postgresql://host/x?timeout=0"}, "?timeout=SECONDS of postgresql:// takes more than 0"),
    ({"THREADS_DATABASE_URL": "postgresql://host/x?timeout=a"}, "THREADS_DATABASE_URL: ?timeout=SECONDS of"),
    ({"DATABASE_URL": "postgresql://host"}, "the URL names no database"),
    ({"THREADSVC_DATA_DIR": "/dev/null/data"}, "cannot use /dev/null/data: Not a directory. Set THREADSVC_DATA_DIR to"),
    ({"THREADSVC_DATA_DIR": "/proc/data"}, "cannot use /proc/data"),
]
# settings.py accepts these values, because their syntax is valid. `serve` fails when it uses them.
UNUSABLE_VALUES: list[tuple[dict[str, str], str]] = [
    ({"THREADSVC_TLS": "1"}, "THREADSVC_TLS=1 needs THREADSVC_TRUSTED_PROXIES"),
    ({"DATABASE_URL": "postgresql://user:hidden@127.0.0.1:1/x"}, "cannot use the database of DATABASE_URL"),
    ({"DATABASE_URL": "postgresql://127.0.0.1:1/x?sslmode=a"}, 'invalid sslmode value: "a"'),
    ({"DATABASE_URL": "sqlite:////no/such/directory/x.db"}, "unable to open database file"),
    ({"HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1 port"),
    ({"HOST": "no.such.host.invalid"}, "cannot listen on no.such.host.invalid"),
]

UNUSABLE_MONGODB_URL = "not a MongoDB URL that can be used (its hosts, user, password, or a file that it names)"
NO_MONGODB_NAME = "must be mongodb://host[:port]/name, with name of A-Z, a-z, 0-9, _ and -"
BAD_MONGODB_URLS = [
    ("mongodb://", NO_MONGODB_NAME),
    ("mongodb://host", NO_MONGODB_NAME),
    ("mongodb://u:hidden@host/", NO_MONGODB_NAME),
    ("mongodb://host/a.b", NO_MONGODB_NAME),
    ("mongodb://u:hid:den@host/x", UNUSABLE_MONGODB_URL),
    ("mongodb://u:hidden@host:port/x", UNUSABLE_MONGODB_URL),
    ("mongodb://host/x?bogus=1", "has an option that is none here, or one twice: bogus"),
    (
        "mongodb://host/x?tz_aware=true&appname=a",
        "has an option that is none here, or one twice: tz_aware, appname",
    ),
    (
        "mongodb://host/x?readConcernLevel=snapshot",
        "has an option that is none here, or one twice: readConcernLevel",
    ),
    ("mongodb://host/x?w=1&W=majority", "has an option that is none here, or one twice: w, W"),
    ("mongodb://host/x?maxPoolSize=many", "has an option with a wrong value: maxPoolSize"),
    ("mongodb://host/x?tls=true&tlsCAFile=/none", "has an option with a wrong value: tls, tlsCAFile"),
    ("mongodb://host/x?w=1", "w=1 would break promises; it is majority here"),
    ("mongodb://host/x?journal=false", "journal=false would break promises; it is true here"),
    (
        "mongodb://host/x?readPreference=secondary",
        "readpreference=secondary would break promises; it is primary here",
    ),
]


def name_of(value: object) -> str:
    """Return the settings in shell syntax as a test id. Long values are cut off."""
    if not isinstance(value, dict):
        return ""
    return " ".join(f"{name}={text[:60]}" for name, text in value.items())


def read_settings(directory: Path, **variables: str) -> dict[str, Any]:
    """Run settings.py again with only these environment variables, as a new process would. Return the settings."""
    with mock.patch.dict(os.environ, environment(directory, **variables), clear=True):
        return runpy.run_path(str(ROOT / "threadsvc" / "settings.py"))


def refusal(directory: Path, **variables: str) -> str:
    """Return the error message of settings.py for these environment variables."""
    with pytest.raises(ImproperlyConfigured) as refused:
        read_settings(directory, **variables)
    return str(refused.value)


def test_environment_of_the_tests_has_good_settings(tmp_path: Path) -> None:
    settings = read_settings(tmp_path / "data", PORT="8001")
    assert (settings["PORT"], settings["DATA_DIR"]) == (8001, tmp_path / "data")


@pytest.mark.parametrize(("settings", "words"), BAD_VALUES, ids=name_of)
def test_bad_setting_is_named(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    told = refusal(tmp_path / "data", **settings)
    assert words in told
    assert len(told.splitlines()) == 1
    assert "hidden" not in told


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("THREADSVC_RATELIMIT", "Did you mean THREADSVC_RATE_LIMIT?"),
        ("THREADSVC_RATE_LIMITS", "Did you mean THREADSVC_RATE_LIMIT?"),
        ("THREADSVC_ALLOWED_HOST", "Did you mean THREADSVC_ALLOWED_HOSTS?"),
        ("THREADSVC_LOGLEVEL", "Did you mean THREADSVC_LOG_LEVEL?"),
        ("THREADSVC_SECRETKEY_FILE", "Did you mean THREADSVC_SECRET_KEY_FILE?"),
        ("THREADSVC_PORT", "Did you mean PORT?"),
        ("THREADSVC_DATABASE_URL", "Did you mean DATABASE_URL?"),
        ("THREADSVC_NO_SUCH", "docs/settings.md lists all settings."),
        ("THREADSVC_", "docs/settings.md lists all settings."),
    ],
)
def test_unknown_setting_suggests_the_nearest_name(tmp_path: Path, name: str, advice: str) -> None:
    assert refusal(tmp_path / "data", **{name: "1"}) == f"{name} is not a setting. {advice}"


def test_unknown_setting_with_an_empty_value_is_refused_too(tmp_path: Path) -> None:
    told = "THREADSVC_RATELIMIT is not a setting. Did you mean THREADSVC_RATE_LIMIT?"
    assert refusal(tmp_path / "data", THREADSVC_RATELIMIT="") == told


@pytest.mark.process
@pytest.mark.parametrize(("settings", "words"), [BAD_VALUES[0], *UNUSABLE_VALUES], ids=name_of)
def test_bad_setting_is_one_clear_line(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    ended = manage(tmp_path / "data", "serve", **{"PORT": str(free_port()), **settings})
    assert ended.returncode == 1
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "hidden" not in ended.stderr


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_secret_key_that_is_empty_or_binary_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    told = f"{tmp_path}/secret_key is empty or not text. Delete it, and the service creates a new one."
    assert refusal(tmp_path) == told


@pytest.mark.process
def test_secret_key_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_bytes(b"\xff\xfe")
    ended = manage(tmp_path, "check")
    assert ended.returncode == 1
    told = f"{tmp_path}/secret_key is empty or not text. Delete it, and the service creates a new one."
    assert ended.stderr == f"threadsvc: {told}\n"


@pytest.mark.parametrize(("url", "told"), BAD_MONGODB_URLS)
def test_bad_mongodb_url_is_named(tmp_path: Path, url: str, told: str) -> None:
    assert refusal(tmp_path / "data", THREADS_DATABASE_URL=url) == f"THREADS_DATABASE_URL: {told}"


@pytest.mark.process
def test_bad_mongodb_url_is_one_clear_line(tmp_path: Path) -> None:
    url, told = BAD_MONGODB_URLS[-1]
    done = manage(tmp_path / "data", "check", "--database", "threads", THREADS_DATABASE_URL=url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"threadsvc: THREADS_DATABASE_URL: {told}\n")
