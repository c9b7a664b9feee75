"""Repeated failed logins to the admin."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client, override_settings
from django.utils import timezone

# Users and login attempts are in the default database. It is SQLite in every test run, whichever engine stores threads.
pytestmark = pytest.mark.stateless

LOGIN = "/admin/login/"
PASSWORD = "a long password"


@pytest.fixture(autouse=True)
def quick_hashes() -> Iterator[None]:
    """Use a fast hash for passwords, because each failed login computes a hash and production hashes are slow."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


def new_operator() -> str:
    """Create a superuser and return its name."""
    name = f"operator-{User.objects.count()}"
    User.objects.create_superuser(name, password=PASSWORD)
    return name


@pytest.fixture
def name() -> str:
    return new_operator()


def log_in(name: str, password: str = PASSWORD, address: str = "203.0.113.7", user_agent: str = "") -> Any:
    client = Client(REMOTE_ADDR=address, headers={"User-Agent": user_agent})
    return client.post(LOGIN, {"username": name, "password": password})


def fail_logins(name: str, times: int, **where: str) -> list[int]:
    return [log_in(name, f"wrong {number}", **where).status_code for number in range(times)]


def lock(name: str) -> None:
    fail_logins(name, 1)
    AccessAttempt.objects.filter(username=name).update(failures_since_start=10)


def is_logged_in(answer: HttpResponse) -> bool:
    assert answer.status_code in (200, 302, 429)
    return answer.status_code == 302


def test_ten_failures_lock_the_name_for_that_address_only(name: str) -> None:
    assert fail_logins(name, 10) == [200] * 9 + [429]
    locked = log_in(name)
    assert locked.status_code == 429
    assert 880 < int(locked["Retry-After"]) <= 900
    page = locked.content.decode()
    assert "You can try again in 15 minutes." in page
    assert name not in page
    assert "script-src 'self';" in locked["Content-Security-Policy"]
    assert not re.search(r"<script>|\son\w+=", page)
    assert is_logged_in(log_in(name, address="203.0.113.8"))
    assert is_logged_in(log_in(new_operator()))


def test_lock_ends_after_15_minutes_despite_further_attempts(name: str) -> None:
    lock(name)
    AccessAttempt.objects.filter(username=name).update(attempt_time=timezone.now() - timedelta(minutes=14, seconds=30))
    assert fail_logins(name, 3) == [429] * 3
    locked = log_in(name)
    assert "You can try again in 1 minute." in locked.content.decode()
    assert 20 < int(locked["Retry-After"]) <= 30
    AccessAttempt.objects.filter(username=name).update(attempt_time=timezone.now() - timedelta(minutes=15))
    assert is_logged_in(log_in(name))


def test_login_clears_earlier_failures(name: str) -> None:
    for _ in range(2):
        assert fail_logins(name, 9) == [200] * 9
        assert is_logged_in(log_in(name))
    assert not AccessAttempt.objects.filter(username=name).exists()


def test_failures_add_up_across_browsers_and_one_network(name: str) -> None:
    for number in range(10):
        log_in(name, "wrong", address=f"2001:db8:0:7:{number}::1", user_agent=f"Browser {number}")
    assert log_in(name, address="2001:db8:0:7::99").status_code == 429
    assert is_logged_in(log_in(name, address="2001:db8:0:8::99"))


@pytest.mark.parametrize(
    ("command", "argument"), [("axes_reset", ()), ("axes_reset_username", "name"), ("axes_reset_ip", "address")]
)
def test_axes_command_unlocks(name: str, command: str, argument: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lock(name)
    assert not is_logged_in(log_in(name))
    call_command(command, *{"name": [name], "address": ["203.0.113.7"]}.get(argument, []))
    assert "removed" in capsys.readouterr().out
    assert is_logged_in(log_in(name))


def test_log_has_the_address_but_not_the_typed_name(name: str, caplog: pytest.LogCaptureFixture) -> None:
    fail_logins(name, 10)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("axes")]
    assert len(lines) == 11
    assert "Locking out" in lines[-1]
    assert all('ip_address: "203.0.113.7"' in line for line in lines)
    assert name not in "".join(lines)


@pytest.mark.parametrize(
    "form",
    [
        b"username=%00&password=x",
        b"username=x&password=%00",
        b"username=" + b"x" * 1024 * 1024 + b"&password=x",
        b"username=x&password=" + b"x" * 1024 * 1024,
        b"username=" + b"x" * 150 + b"&password=x",
        b"username=%ed%a0%80%ff&password=x&" + b"other=y&" * 100,
        b"username=x%0Ay&password=x",
        b"username=&password=",
        b"password=x",
        b"",
        b"%",
    ],
    ids=lambda form: form[:30].decode(),
)
def test_malformed_login_is_refused(form: bytes) -> None:
    client = Client(HTTP_USER_AGENT="\xff" * 4000, HTTP_ACCEPT="\xff" * 4000, REMOTE_ADDR="203.0.113.9")
    for _ in range(12):
        answer = client.post(LOGIN, form, content_type="application/x-www-form-urlencoded")
        assert answer.status_code in ((400,) if b"%00" in form else (200, 429))
    attempts = AccessAttempt.objects.filter(ip_address="203.0.113.9")
    assert attempts.exists() or b"xxx" not in form or b"%00" in form
    columns = {"username": 255, "user_agent": 255, "path_info": 255, "http_accept": 1025}
    for row in attempts.values(*columns):
        # The values must fit the columns. SQLite would store longer values, but PostgreSQL refuses them.
        assert all(len(row[column]) <= most for column, most in columns.items())
    attempts.delete()


def test_locked_login_costs_no_hash(name: str) -> None:
    lock(name)
    # Without a hasher, computing a hash raises an exception. The 429 therefore shows that no hash was computed.
    with override_settings(PASSWORD_HASHERS=[]):
        assert log_in(name).status_code == 429
