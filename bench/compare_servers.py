"""Compare gunicorn and granian with this project's application, and print one table.

Measures create throughput, and response times while many slow clients are connected. Also tests chunked bodies, a long
URL, and a shutdown during a request. Requires `apt-get install wrk` and `pip install granian gunicorn`.

    .venv/bin/python bench/compare_servers.py [seconds]
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
WORKERS, THREADS, PORT = 2, 8, 8765
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 8

SERVERS = {
    "gunicorn gthread": [
        f"{BIN}/gunicorn", "threadsvc.wsgi", "-b", f"127.0.0.1:{PORT}", "-w", str(WORKERS), "-k", "gthread",
        "--threads", str(THREADS), "--limit-request-line", "0", "--log-level", "error",
    ],
    "granian wsgi": [
        f"{BIN}/granian", "--interface", "wsgi", "threadsvc.wsgi:application", "--port", str(PORT), "--workers",
        str(WORKERS), "--blocking-threads", str(THREADS), "--no-log", "--http", "1",
    ],
}  # fmt: skip

WRK = """
local ids = {%s}
local n = 0
request = function()
  n = n + 1
  return wrk.format("POST", "/threads/" .. ids[n %% #ids + 1] .. "/messages",
    {["Content-Type"] = "application/json"}, '{"role":"user","content":"How does AI work? Explain it in simple words"}')
end
"""


def call(method: str, path: str, timeout: float = 30) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_until_up() -> float:
    start = time.monotonic()
    while time.monotonic() - start < 20:
        try:
            call("GET", "/healthz")
            return time.monotonic() - start
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the server did not start")


def throughput(threads: list[str]) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK % ",".join(f'"{thread}"' for thread in threads))
        script.flush()
        command = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "--latency", "-s", script.name, f"http://127.0.0.1:{PORT}"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    p50, p99, rate = re.findall(r"(?:Requests/sec:|\b50%|\b99%)\s+(\d\S*)", out)
    bad = re.search(r"Non-2xx.*", out)
    return f"{rate}/s, p50 {p50}, p99 {p99}" + (f", {bad[0]}" if bad else "")


def slow_clients(thread: str, count: int) -> str:
    """Measure a normal client while `count` slow clients send one byte of their bodies per second. Return a summary."""
    head = f"POST /threads/{thread}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    slow = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", PORT))
        connection.sendall(f"{head}Content-Length: 60\r\n\r\n{{".encode())
        slow.append(connection)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(1):
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.send(b" ")

    threading.Thread(target=drip, daemon=True).start()
    time.sleep(1)
    waits, failed = [], 0
    end = time.monotonic() + 5
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            call("GET", f"/threads/{thread}", timeout=5)
            waits.append(time.monotonic() - start)
        except OSError:
            failed += 1
    stop.set()
    for connection in slow:
        connection.close()
    worst = f"{max(waits) * 1000:.0f} ms" if waits else "-"
    return f"{len(waits)} responses, slowest {worst}, {failed} without a response in 5 s"


def chunked(*chunks: bytes, end: bool) -> str:
    """Send POST /threads with these chunks, and return the status line of the response.

    If `end` is true, the client shuts down its sending side after the chunks.
    """
    with socket.create_connection(("127.0.0.1", PORT), timeout=5) as connection:
        connection.sendall(
            b"POST /threads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + b"".join(chunks)
        )
        if end:
            connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline().decode().strip() or "closed without a response"


def shutdown(server: subprocess.Popen[bytes], thread: str) -> str:
    """Send SIGTERM while a request body is in flight. Return the status line, the exit code and the time to exit."""
    body = b'{"role":"user","content":"sent around the end"}'
    with socket.create_connection(("127.0.0.1", PORT), timeout=20) as connection:
        connection.sendall(
            f"POST /threads/{thread}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body[:20]
        )
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        start = time.monotonic()
        time.sleep(1)
        try:
            connection.sendall(body[20:])
            answer = connection.makefile("rb").readline().decode().strip() or "closed without a response"
        except OSError as error:
            answer = type(error).__name__
    try:
        code = server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        return f"{answer}; did not exit in 20 s"
    return f"{answer}; exit {code} after {time.monotonic() - start:.1f} s"


def main() -> None:
    for program in ("wrk", f"{BIN}/granian", f"{BIN}/gunicorn"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install wrk; {BIN}/pip install granian")
    rows = {}
    for name, command in SERVERS.items():
        with tempfile.TemporaryDirectory() as directory:
            environment = {**os.environ, "THREADSVC_DATA_DIR": directory, "THREADSVC_ALLOW_ANONYMOUS": "1"}
            subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
            server = subprocess.Popen(command, cwd=ROOT, env=environment)
            try:
                row = {"first response after start": f"{wait_until_up():.2f} s"}
                threads = [json.loads(call("POST", "/threads")[1])["id"] for _ in range(200)]
                throughput(threads)  # warm up the server
                row[f"create message, {WORKERS} workers, 16 connections"] = throughput(threads)
                row["complete chunked body"] = chunked(b"1\r\n{\r\n", b"1\r\n}\r\n", b"0\r\n\r\n", end=False)
                row["truncated chunked body"] = chunked(b"40\r\n{}", end=True)
                row["malformed chunked body"] = chunked(b"zz\r\n{}\r\n", b"0\r\n\r\n", end=False)
                row["200 clients that send one byte per second"] = slow_clients(threads[0], 200)
                row["URL of 8 KiB"] = str(call("GET", "/threads/" + "x" * (8192 - 9))[0])
                row["SIGTERM in the middle of a body"] = shutdown(server, threads[0])
            finally:
                server.kill()
            rows[name] = row
    for what in next(iter(rows.values())):
        print(what)
        for name, row in rows.items():
            print(f"    {name:18} {row[what]}")


if __name__ == "__main__":
    main()
