"""Load by wrk: one thread, a number of connections, and requests that go over many threads."""

import json
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

from bench.operations import Operation, Wrong
from bench.running import Served
from tests.servers import install

CONNECTIONS = 16
MOST_REQUESTS = 2000  # different ones; wrk holds them as they go over the wire
SECONDS_TO_ANSWER = 30

# wrk writes bytes as it got them from `request`: they are made once. Answers are looked at only where `expected` is
# given, since that costs wrk, on the same CPUs, as much as it costs to send.
SCRIPT = """
local sent = {%(requests)s}
local headers = {%(headers)s}
local expected = %(expected)s
local number = 0
wrong = 0
local threads = {}

function setup(thread) table.insert(threads, thread) end

function init(arguments)
  for at, one in ipairs(sent) do sent[at] = wrk.format(one[1], one[2], headers, one[3]) end
end

function request()
  number = number + 1
  return sent[(number - 1) %% #sent + 1]
end

if expected then
  function response(status, headers, body)
    if status ~= 200 or not body:find(expected, 1, true) then wrong = wrong + 1 end
  end
end

function done(summary, latency, requests)
  local errors, wrong = summary.errors, 0
  for _, thread in ipairs(threads) do wrong = wrong + thread:get("wrong") end
  io.write(string.format(
    '\\n{"requests":%%d,"microseconds":%%d,"refused":%%d,"broken":%%d,"wrong":%%d,"p50":%%d,"p99":%%d}\\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    wrong, latency:percentile(50), latency:percentile(99)))
end
"""


class Load(NamedTuple):
    """What wrk saw: how many answers there were, and half and 99 of 100 of them came within so many milliseconds."""

    requests: int
    rate: float  # answers a second
    p50: float
    p99: float


def require_wrk() -> None:
    """Raises tests.servers.Unavailable where it is missing and cannot be installed."""
    if not shutil.which("wrk"):
        install("wrk")


def loaded(served: Served, operation: Operation, seconds: float, look: bool = False) -> Load:
    """Loads it for so long; with `look`, each answer is looked at. Raises Wrong where any is not what it should be."""
    headers = {**served.headers, **({"Content-Type": "application/json"} if operation.requests[0].body else {})}
    # JSON's texts are Lua's: these are ASCII.
    requests = [f"{{{','.join(map(json.dumps, request))}}}" for request in operation.requests[:MOST_REQUESTS]]
    script = SCRIPT % {
        "requests": ",\n".join(requests),
        "headers": ",".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in headers.items()),
        "expected": json.dumps(operation.expected) if look else "nil",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        options = [f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-t1", f"--timeout={SECONDS_TO_ANSWER}s"]
        command = ["setpriv", "--pdeathsig", "TERM", "wrk", *options, "-s", file.name]
        done = subprocess.run([*command, f"http://{served.host}:{served.port}"], capture_output=True, text=True)
    where = f"{served.name}, {operation.name}"
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Wrong(f"{where}: wrk failed: {done.stderr or done.stdout}") from None
    for fault in ("refused", "broken", "wrong"):
        if found[fault]:
            raise Wrong(f"{where}: {found[fault]} of {found['requests']} answers were {fault}")
    if not found["requests"]:
        raise Wrong(f"{where}: no answers")
    rate = found["requests"] / found["microseconds"] * 1e6
    return Load(found["requests"], rate, found["p50"] / 1000, found["p99"] / 1000)
