"""API keys: operators create, list and revoke them with commands and in the admin, and see their last use."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client
from django.utils import timezone

from messages_app.models import Thread
from tests.admin_pages import client_of, page
from tests.conftest import Api, Served, manage
from threadsvc.access.models import APIKey
from threadsvc.access.usage import LastUses
from threadsvc.management.commands.serve import is_loopback

pytestmark = pytest.mark.stateless

KEYS = "/admin/access/apikey/"
KEY = re.compile(r"tsk_[0-9A-Za-z]{8}_[0-9A-Za-z]{40}")


def new_row(**fields: Any) -> APIKey:
    row = APIKey(**{"name": "test", **fields})
    row.issue()
    return row


def bearer(key: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {key}"}


def command(*arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


# Commands


def test_key_is_created_used_listed_and_revoked_at_run_time(serve: Callable[..., Served], tmp_path: Path) -> None:
    service = serve("--anonymous-on-loopback", THREADSVC_ALLOW_ANONYMOUS="0")
    assert "API keys    required" in service.log.read_text()
    created = manage(tmp_path / "data", "create_api_key", "an app", "--tenant", "acme", "--expires", "90d")
    key = created.stdout.strip()
    assert KEY.fullmatch(key)
    assert (created.returncode, created.stdout) == (0, f"{key}\n")
    assert key not in created.stderr

    def status() -> int:
        return service.call("GET", "/v1/threads", Authorization=f"Bearer {key}").status

    assert service.call("GET", "/v1/threads").status == 401
    page = service.call("GET", "/").body.decode()
    commands = [
        unescape(re.sub("<.*?>", "", step)) for step in re.findall("<pre.*?><code>(.*?)</code></pre>", page, re.S)
    ]
    assert commands[0] == "key=tsk_..."
    script = "\n".join(commands).replace("tsk_...", key)
    done = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, timeout=30)
    assert (json.loads(done.stdout.splitlines()[1])["object"], done.stderr) == ("thread.message", "")
    assert {status() for _ in range(8)} == {200}
    assert key[13:].encode() not in (tmp_path / "data/threadsvc.db-wal").read_bytes()
    listed = manage(tmp_path / "data", "list_api_keys").stdout
    head, row = listed.splitlines()
    assert head.split() == ["PREFIX", "NAME", "TENANT", "RIGHTS", "CREATED", "EXPIRES", "LAST", "USED", "STATE"]
    assert re.split("  +", row)[:4] == [key[4:12], "an app", "acme", "read and write"]
    assert re.split("  +", row)[-1] == "active"
    # The row would contain "never" if the key had no last use or no expiry.
    assert "never" not in row
    assert key[13:] not in listed
    revoked = manage(tmp_path / "data", "revoke_api_key", key)
    assert (revoked.returncode, revoked.stderr) == (0, "")
    assert {status() for _ in range(8)} == {401}
    assert key not in service.log.read_text()


def test_service_on_loopback_requires_no_key_and_says_so(serve: Callable[..., Served]) -> None:
    service = serve("--anonymous-on-loopback", THREADSVC_ALLOW_ANONYMOUS="")
    assert "not required (HOST is a loopback address): any client that reaches this address" in service.log.read_text()
    assert service.call("GET", "/threads").status == 200


def test_service_on_loopback_behind_a_proxy_requires_keys(
    serve: Callable[..., Served],
) -> None:
    proxy = {"THREADSVC_TRUSTED_PROXIES": "127.0.0.1", "THREADSVC_TLS": "1"}
    service = serve("--anonymous-on-loopback", THREADSVC_ALLOW_ANONYMOUS="", **proxy)
    assert "API keys    required" in service.log.read_text()
    assert service.call("GET", "/threads").status == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_address_is_recognized(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "127.evil.example", "localhost.example", "192.0.2.1", "127.0.0.1.", ""]
)
def test_other_address_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("expires", "hours"), [("12h", 12), ("90d", 90 * 24), ("4w", 4 * 7 * 24), ("2999-01-31", None), (None, None)]
)
def test_key_expires_at_the_given_time(expires: str | None, hours: int | None) -> None:
    out, _ = command("create_api_key", "test", *([f"--expires={expires}"] if expires else []))
    at = APIKey.objects.get(prefix=out[4:12]).expires_at
    if hours:
        assert at is not None
        assert abs(at - timezone.now() - timedelta(hours=hours)) < timedelta(minutes=1)
    else:
        assert at == (datetime(2999, 1, 31, tzinfo=UTC) if expires else None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "name: This field cannot be blank."),
        (["x" * 51], "name: Ensure this value has at most 50 characters (it has 51)."),
        (["\udc80"], "name: Null and surrogate characters are not allowed."),
        (["a\0b"], "name: Null"),
        (["test", "--tenant="], "tenant: This field cannot be blank."),
        (["test", f"--tenant={'x' * 65}"], "tenant: Ensure this value has at most 64 characters"),
        (["test", "--tenant=\udc80"], "tenant: Null and surrogate characters"),
        (["test", "--expires=2020-01-31"], "--expires: 2020-01-31 is in the past"),
        (["test", "--expires=soon"], "--expires: 'soon' is not a duration such as 12h, 90d or 4w, nor a date such as"),
        (["test", "--expires=9999999w"], "'9999999w' is not a duration"),
        (["test", "--expires=0d"], "'0d' is not a duration"),
        (["test", "--expires=\u0661d"], "is not a duration"),
    ],
)
def test_invalid_option_of_a_key_is_a_one_line_error(arguments: list[str], words: str) -> None:
    before = APIKey.objects.count()
    with pytest.raises(CommandError) as caught:
        command("create_api_key", *arguments)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert APIKey.objects.count() == before


def test_control_characters_in_a_name_are_not_printed() -> None:
    out, err = command("create_api_key", "Zoë's 🦦 \x1b[31m", f"--tenant={'ü' * 64}", "--read-only")
    assert "\x1b" not in err
    assert "can read in tenant üüü" in err
    listed, _ = command("list_api_keys")
    (row,) = (line for line in listed.splitlines() if out[4:12] in line)
    assert "\x1b" not in row
    assert "Zoë's 🦦 \ufffd[31m" in row


def test_revoke_takes_a_prefix_or_a_key_and_is_idempotent() -> None:
    for start, end in ((4, 12), (0, 12), (0, None)):
        key, _ = command("create_api_key", "test")
        named = key.strip()[start:end]
        assert command("revoke_api_key", named)[0].startswith(f"Revoked test ({key[4:12]}).")
        first = APIKey.objects.get(prefix=key[4:12]).revoked_at
        assert "was already revoked on 20" in command("revoke_api_key", named)[0]
        assert APIKey.objects.get(prefix=key[4:12]).revoked_at == first


@pytest.mark.parametrize("key", ["", "tsk_", "nope", "tsk_abcdefgh_secret", "\udc80", "é", "x" * 100_000])
def test_revoke_does_not_print_an_unknown_key(key: str) -> None:
    with pytest.raises(CommandError) as caught:
        command("revoke_api_key", key)
    assert str(caught.value) == "there is no such key; list_api_keys shows the prefixes"


def test_tenant_field_of_keys_equals_that_of_threads() -> None:
    of_keys, of_threads = (model._meta.get_field("tenant") for model in (APIKey, Thread))
    assert (of_keys.default, of_keys.max_length) == (of_threads.default, of_threads.max_length)


# Last use


def last_use(row: APIKey) -> datetime | None:
    return APIKey.objects.get(prefix=row.prefix).last_used_at


def wait_for_new_use(row: APIKey, last: datetime | None) -> datetime:
    end = time.monotonic() + 20
    while (at := last_use(row)) == last or at is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return at


def test_first_use_is_recorded_at_once_and_later_ones_throttled() -> None:
    row, other, uses = new_row(), new_row(), LastUses(seconds_between=3)
    uses.record(row.prefix)
    first, started = wait_for_new_use(row, None), time.monotonic()
    for _ in range(1000):
        uses.record(row.prefix)
    uses.record(other.prefix)
    # Uses are recorded in order. When this one is stored, all earlier uses have been handled.
    wait_for_new_use(other, None)
    assert last_use(row) == first
    assert wait_for_new_use(row, first) > first
    assert time.monotonic() - started > 1.5


def test_last_use_never_moves_back() -> None:
    row, now = new_row(), timezone.now()
    for at in (now, now - timedelta(minutes=1)):
        APIKey.objects.used(row.prefix, at)
    assert last_use(row) == now


def test_last_use_is_retried_if_the_database_is_unreachable(caplog: pytest.LogCaptureFixture) -> None:
    uses, row = LastUses(seconds_between=0.2), new_row()
    name = connections["default"].settings_dict["NAME"]
    # record() starts a thread that tries to open this file.
    connections["default"].settings_dict["NAME"] = "/no/such/directory/x.db"
    try:
        threads = set(threading.enumerate())
        uses.record(row.prefix)
        end = time.monotonic() + 20
        while "last use of keys not recorded" not in caplog.text and time.monotonic() < end:
            time.sleep(0.02)
        (thread,) = set(threading.enumerate()) - threads
    finally:
        connections["default"].settings_dict["NAME"] = name
    assert "last use of keys not recorded, to be tried again: unable to open database file" in caplog.text
    assert "Traceback" not in caplog.text
    assert wait_for_new_use(row, None)
    assert thread.is_alive()


# The admin


def add(client: Client, **form: str) -> Any:
    sent = {"name": "by hand", "tenant": "acme", "expires_at_0": "", "expires_at_1": "", **form}
    return client.post(f"{KEYS}add/", sent)


def test_admin_shows_a_key_once_and_stores_it_nowhere(admin: Client, api: Api) -> None:
    answer = add(admin, read_only="on")
    (key,) = KEY.findall(answer.content.decode())
    assert "no-store" in answer["Cache-Control"]
    assert key not in str(answer.cookies)
    row = APIKey.objects.get(prefix=key[4:12])
    assert (row.name, row.tenant, row.read_only, row.expires_at) == ("by hand", "acme", True, None)
    assert api.get("/threads", **bearer(key)).status == 200
    assert api.post("/threads", **bearer(key)).status == 403
    for path in (KEYS, f"{KEYS}{row.prefix}/change/", f"{KEYS}{row.prefix}/history/", "/admin/"):
        html = page(admin, path)
        assert key[13:] not in html
        assert row.hashed_key not in html


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 51}, "at most 50 characters"),
        ({"tenant": ""}, "This field is required."),
        ({"expires_at_0": "2020-01-31", "expires_at_1": "12:00"}, "This time is in the past."),
        ({"expires_at_0": "2030-01-31"}, "Enter a valid time."),
        ({"expires_at_0": "9999-99-99", "expires_at_1": "x"}, "Enter a valid date."),
    ],
)
def test_admin_refuses_invalid_keys(admin: Client, form: dict[str, str], words: str) -> None:
    before = APIKey.objects.count()
    answer = add(admin, **form)
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert APIKey.objects.count() == before


def test_admin_finds_keys_by_name_prefix_and_state(admin: Client) -> None:
    now = timezone.now()
    rows = {
        "active": new_row(name="needle one"),
        "expired": new_row(name="needle two", expires_at=now - timedelta(days=1)),
        "revoked": new_row(name="needle three", revoked_at=now, expires_at=now - timedelta(days=1)),
    }
    for state, row in rows.items():
        found = page(admin, KEYS, q="needle", state=state)
        assert {other.prefix for other in rows.values() if other.prefix in found} == {row.prefix}
        assert row.name in page(admin, KEYS, q=row.prefix)
    assert all(row.prefix in page(admin, KEYS, q="needle", state="nonsense") for row in rows.values())


def test_admin_revokes_after_confirmation(admin: Client, api: Api) -> None:
    key, _ = command("create_api_key", "one")
    one, others = APIKey.objects.get(prefix=key[4:12]), [new_row(), new_row()]
    address = f"{KEYS}{one.prefix}/revoke/"
    assert address in page(admin, f"{KEYS}{one.prefix}/change/")
    assert "This cannot be undone" in page(admin, address)
    assert api.get("/threads", **bearer(key.strip())).status == 200
    answer = admin.post(address, {"post": "yes"}, follow=True)
    assert f"Revoked one ({one.prefix})." in answer.content.decode()
    assert api.get("/threads", **bearer(key.strip())).status == 401
    assert address not in page(admin, f"{KEYS}{one.prefix}/change/")
    assert "Revoked." in page(admin, f"{KEYS}{one.prefix}/history/")

    form = {"action": "revoke", "_selected_action": [row.prefix for row in (one, *others)]}
    assert "This cannot be undone" in admin.post(KEYS, form).content.decode()
    assert {APIKey.objects.get(prefix=row.prefix).state for row in others} == {"active"}
    revoked_at = APIKey.objects.get(prefix=one.prefix).revoked_at
    html = admin.post(KEYS, {**form, "post": "yes"}, follow=True).content.decode()
    assert all(f"test ({row.prefix})" in html for row in others)
    assert {APIKey.objects.get(prefix=row.prefix).state for row in others} == {"revoked"}
    assert APIKey.objects.get(prefix=one.prefix).revoked_at == revoked_at


def test_admin_can_neither_change_nor_delete_keys(admin: Client) -> None:
    row = new_row()
    form = {"name": "other", "tenant": "other", "hashed_key": "x", "revoked_at_0": "", "post": "yes"}
    for path in ("change/", "delete/"):
        assert admin.post(f"{KEYS}{row.prefix}/{path}", form).status_code == 403
    admin.post(KEYS, {"action": "delete_selected", "_selected_action": row.prefix, "post": "yes"})
    stored = APIKey.objects.get(prefix=row.prefix)
    assert (stored.name, stored.tenant, stored.hashed_key) == ("test", "default", row.hashed_key)


def test_staff_see_only_what_their_permissions_allow(admin: Client) -> None:
    user, row = User.objects.create_user("keykeeper", password="a long password", is_staff=True), new_row()
    client, one = client_of(user), f"{KEYS}{row.prefix}/"
    paths = [KEYS, f"{one}change/", f"{one}history/", f"{KEYS}add/", f"{one}revoke/"]
    assert [client.get(path).status_code for path in paths] == [403] * 5
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    assert [client.get(path).status_code for path in paths] == [200, 200, 200, 403, 403]
    assert client.post(f"{one}revoke/", {"post": "yes"}).status_code == 403
    client.post(KEYS, {"action": "revoke", "_selected_action": row.prefix, "post": "yes"})
    assert APIKey.objects.get(prefix=row.prefix).state == "active"
    user.user_permissions.add(Permission.objects.get(codename="add_apikey"))
    assert KEY.search(add(client).content.decode())
    user.user_permissions.add(Permission.objects.get(codename="change_apikey"))
    assert [client.get(path).status_code for path in paths] == [200] * 5


@pytest.mark.parametrize("path", ["", "change/", "delete/", "history/", "revoke/"])
@pytest.mark.parametrize("prefix", ["nope", "x" * 5000, "%00", "é", "_2Fx", "a/b", "'", "%ff"])
def test_odd_address_of_a_key_is_not_a_server_error(admin: Client, prefix: str, path: str) -> None:
    for method in (admin.get, admin.post):
        assert method(f"{KEYS}{prefix}/{path}").status_code < 500


@pytest.mark.parametrize(
    "query",
    ["state=%00", "q=%00", "o=99.-99.x", "p=99999", "hashed_key__startswith=s", "is_staff__exact=1", "e=1", "all="],
)
def test_odd_query_of_the_list_is_not_a_server_error(admin: Client, query: str) -> None:
    assert admin.get(f"{KEYS}?{query}").status_code < 500


@pytest.mark.parametrize("selected", ["", "x", "\0", "x" * 9, "' OR 1"])
def test_odd_selection_is_refused(admin: Client, selected: str) -> None:
    assert admin.post(KEYS, {"action": "revoke", "_selected_action": selected, "post": "yes"}).status_code == 400
