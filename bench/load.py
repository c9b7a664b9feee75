"""Generate load with wrk, which uses one thread and several connections. The requests cover many conversations."""

import json
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

from bench.operations import Operation, WrongResult
from bench.running import Served
from tests.servers import install

CONNECTIONS = 16
MAX_REQUESTS = 2000  # distinct requests, which wrk keeps in memory as bytes
SECONDS_TO_ANSWER = 30

# `init` encodes each request once, and `request` returns the bytes. Responses are checked only if `expected` is set. A
# check costs wrk as much CPU time as sending a request, and wrk runs on the same CPUs as the server.
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
    """Results from wrk. `requests` is the number of responses. `p50` and `p99` are response times in milliseconds."""

    requests: int
    rate: float  # responses per second
    p50: float
    p99: float


def require_wrk() -> None:
    """Install wrk if it is missing. Raises tests.servers.Unavailable if it cannot be installed."""
    if not shutil.which("wrk"):
        install("wrk")


def run_load(served: Served, operation: Operation, seconds: float, check: bool = False) -> Load:
    """Run wrk and return its results. With `check`, each response body must contain the expected text.

    Raises WrongResult if a request fails or a response is wrong.
    """
    headers = {**served.headers, **({"Content-Type": "application/json"} if operation.requests[0].body else {})}
    # JSON strings are valid in Lua, because they are ASCII.
    requests = [f"{{{','.join(map(json.dumps, request))}}}" for request in operation.requests[:MAX_REQUESTS]]
    script = SCRIPT % {
        "requests": ",\n".join(requests),
        "headers": ",".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in headers.items()),
        "expected": json.dumps(operation.expected) if check else "nil",
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
        raise WrongResult(f"{where}: wrk failed: {done.stderr or done.stdout}") from None
    for fault in ("refused", "broken", "wrong"):
        if found[fault]:
            raise WrongResult(f"{where}: {found[fault]} of {found['requests']} responses were {fault}")
    if not found["requests"]:
        raise WrongResult(f"{where}: no responses")
    rate = found["requests"] / found["microseconds"] * 1e6
    return Load(found["requests"], rate, found["p50"] / 1000, found["p99"] / 1000)
