"""Real captures beside two witnesses: ``python -m tests.benchmarks.captures [--seconds 8] [--keep DIRECTORY]``.

Each of three servers with known stalls runs under a load, once for each tracer, from its start to its end:

- the sample (``samples/file_server.py``), which ``stallscope run`` records in the same run;
- nginx, whose access log is a FIFO of one page that a reader empties every quarter of a second;
- redis, which is told ``DEBUG SLEEP 0.05`` twice a second.

The witnesses are stallscope's own recording (the sample has one) and a bpftrace program, which counts in the kernel,
for each thread, the times from the return of epoll_wait to its next entry.  What ``stallscope analyze`` makes of the
tracer's text must have the iterations of both within 1 %, and the same call and resource as first culprit.

Needs root, strace, perf, bpftrace, nginx and redis-server (Debian: strace, linux-perf, bpftrace,
nginx-light, redis-server).
"""

from __future__ import annotations

import argparse
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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from stallscope.errors import StallscopeError
from stallscope.ingest.recognise import ingest

SAMPLE = Path(__file__).parents[2] / "samples" / "file_server.py"
TOLERANCE = 0.01
CALLS = "raw_syscalls:sys_enter,raw_syscalls:sys_exit"
SCHEDULER = "sched:sched_switch,sched:sched_wakeup,sched:sched_wakeup_new"
WITNESS = """
tracepoint:syscalls:sys_exit_epoll_wait { @since[tid] = nsecs; @program[tid] = comm; }
tracepoint:syscalls:sys_enter_epoll_wait /@since[tid]/ {
  @usecs[tid] = hist((nsecs - @since[tid]) / 1000);
  if (nsecs - @since[tid] >= 10000000) { @stalls[tid] = count(); }
  delete(@since[tid]);
}
END { clear(@since); }
"""
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {folder}; keepalive_requests 1000000; }}
}}
"""


@dataclass(frozen=True)
class Server:
    """One server: its command, what to do with it while it runs, and which call must be the first culprit."""

    name: str
    command: list[str]
    drive: Callable[[float], None]
    call: str
    resource: str | None
    """A pattern for fnmatch; None: no matter."""
    own: str = ""
    """Where its own recording is."""


@dataclass(frozen=True)
class Tool:
    """One tracer: what to put before the command, and how to get the text."""

    name: str
    prefix: list[str]
    convert: list[str] | None = None
    """Prints the text of what was recorded."""
    names_paths: bool = True


def main() -> None:
    """Print one row for each server and tracer; leave with 1 when one is not as it must be."""
    options = _options()
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"{'server':8} {'tracer':16} {'iterations':>10} {'bpftrace':>9} {'own':>7} {'stalls':>6} {'bpf':>5}"
        "  first culprit"
    )
    good = True
    for name in options.servers:
        for tool in options.tools:
            with tempfile.TemporaryDirectory() as scratch:
                good &= _row(SERVERS[name](Path(scratch), options.seconds), TOOLS[tool](folder, name), folder, options)
    if options.keep is None:
        shutil.rmtree(folder)
    sys.exit(0 if good else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--keep", type=Path, help="leave the captures in this directory")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    return parser.parse_args()


def _row(server: Server, tool: Tool, folder: Path, options: argparse.Namespace) -> bool:
    """Run a server under a tracer, and print what the text, bpftrace and our own recording say of it."""
    text, witness = folder / f"{server.name}.{tool.name}.txt", folder / f"{server.name}.{tool.name}.bpftrace.txt"
    with witnessing(witness, WITNESS):
        process = subprocess.Popen(
            [*tool.prefix, *server.command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        server.drive(options.seconds)
        _end(process, options.seconds)
    if tool.convert:
        with text.open("wb") as file:
            subprocess.run(tool.convert, stdout=file, stderr=subprocess.DEVNULL, check=True)
    found = json.loads(_stallscope("analyze", "--json", "--all-stalls", str(text)))
    own = json.loads(_stallscope("analyze", "--json", "--all-stalls", server.own)) if server.own else None
    tid = own["loops"][0]["tid"] if own else _busiest(witness, server.name)
    loop = next((loop for loop in found["loops"] if loop["tid"] == tid), None)
    if loop is None:
        print(f"{server.name:8} {tool.name:16} did not see the loop of thread {tid}")
        return False
    return _print_row(server, tool, found, loop, _counted(witness, tid), own)


def _busiest(witness: Path, program: str) -> int:
    """The thread of a program that turned most often."""
    lines = re.findall(rf"^@program\[(\d+)\]: {program}", witness.read_text(), re.MULTILINE)
    return max(map(int, lines), key=lambda tid: _counted(witness, tid), default=0)


def _print_row(
    server: Server,
    tool: Tool,
    found: dict[str, Any],
    loop: dict[str, Any],
    counted: tuple[int, int],
    own: dict[str, Any] | None,
) -> bool:
    culprit = _first_culprit(found, loop["id"])
    same = culprit.get("syscall") in server.call.split("|")
    if tool.names_paths and server.resource:
        same &= fnmatch(culprit.get("resource") or "", server.resource)
    if own:
        same &= _first_culprit(own, own["loops"][0]["id"]).get("syscall") == culprit.get("syscall")
    iterations, own_iterations = loop["iterations"], own["loops"][0]["iterations"] if own else None
    others = [number for number in (counted[0], own_iterations) if number is not None]
    close = all(abs(iterations - other) <= max(2, TOLERANCE * other) for other in others)
    print(
        f"{server.name:8} {tool.name:16} {iterations:10,} {counted[0]:9,} {own_iterations or '-':>7} "
        f"{loop['stalls']['count']:6} {counted[1]:5}  {culprit.get('syscall')} {culprit.get('resource') or ''}"
        f"{'' if close else '  ITERATIONS DIFFER'}{'' if same else '  OTHER CULPRIT'}",
        flush=True,
    )
    return close and same


def _first_culprit(found: dict[str, Any], loop: int) -> dict[str, Any]:
    """The call to which most of one loop's stall time goes: other programs of the trace have culprits of their own, and
    on a busy machine a loop may wait for a CPU longer than for anything else."""
    calls = {culprit["rank"]: culprit for culprit in found["culprits"] if culprit["cause"] == "blocking-syscall"}
    sums: Counter[int] = Counter()
    for stall in found["stalls"]:
        if stall["loop"] == loop and stall["culprit"] in calls:
            sums[stall["culprit"]] += stall["ledger"]["blocking-syscall"]
    return calls[sums.most_common(1)[0][0]] if sums else {}


def _counted(witness: Path, tid: int) -> tuple[int, int]:
    """bpftrace's iterations and stalls of one thread."""
    try:
        loops = ingest(witness).loops
    except StallscopeError:
        return 0, 0
    histogram = next((loop.coarse for loop in loops if loop.name == f"@usecs[{tid}]"), None)
    stalls = [line for line in witness.read_text().splitlines() if line.startswith(f"@stalls[{tid}]:")]
    return sum(histogram.counts) if histogram else 0, int(stalls[0].split()[1]) if stalls else 0


def _stallscope(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "stallscope", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else sys.exit(done.stderr)


@contextmanager
def witnessing(path: Path, counts: str) -> Iterator[subprocess.Popen[bytes]]:
    """bpftrace counts, from when it says that it does until it is told to stop."""
    with path.open("w") as file:
        program = ["bpftrace", "-e", 'BEGIN { printf("ready\\n"); }' + counts]
        environment = {**os.environ, "BPFTRACE_MAP_KEYS_MAX": "65536"}
        with subprocess.Popen(program, stdout=file, stderr=subprocess.DEVNULL, env=environment) as bpftrace:
            try:
                _until(lambda: "ready" in path.read_text(), "bpftrace")
                yield bpftrace
            finally:
                _interrupt(bpftrace)


def _interrupt(bpftrace: subprocess.Popen[bytes]) -> None:
    """Until it ends: once in a while a signal is lost while bpftrace waits for events."""
    for ending in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        bpftrace.send_signal(ending)
        try:
            bpftrace.wait(timeout=20)
            return
        except subprocess.TimeoutExpired:
            continue
    bpftrace.kill()


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(timeout=60 + 10 * seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # a tracer that outlives its program still writes what it has
        process.wait(timeout=60)


def _until(condition: Callable[[], bool], what: str) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        if time.monotonic() > ends_at:
            sys.exit(f"{what} did not start within 30 s")
        time.sleep(0.05)


def _sample(scratch: Path, seconds: float) -> Server:
    own = str(scratch / "own.stall")
    command = [sys.executable, "-m", "stallscope", "run", "-o", own, str(SAMPLE)]
    # Which of the three calls comes first is for the load to say; both recordings must say the same.
    calls = "write|read|openat"
    return Server("sample", [*command, "--demo", str(seconds)], lambda _: None, calls, "*/slow_storage.*", own)


def _nginx(scratch: Path, seconds: float) -> Server:
    port, log = _free_port(), scratch / "access.log"
    (scratch / "index.html").write_bytes(b"x" * 4096)
    (scratch / "conf").write_text(NGINX.format(folder=scratch, port=port))
    scratch.chmod(0o755)
    os.mkfifo(log, 0o666)

    def drive(seconds: float) -> None:
        stop = threading.Event()
        threads = [threading.Thread(target=_empty_slowly, args=(log, stop))]
        threads[0].start()
        _until(lambda: _answers(port), "nginx")
        threads += [threading.Thread(target=_get, args=(port, time.monotonic() + seconds)) for _ in range(3)]
        for thread in threads[1:]:
            thread.start()
        for thread in threads[1:]:
            thread.join()
        os.kill(int((scratch / "pid").read_text()), signal.SIGTERM)
        stop.set()
        threads[0].join()

    command = [_path("nginx"), "-p", str(scratch), "-c", str(scratch / "conf")]
    return Server("nginx", command, drive, "write", "*/access.log")


def _empty_slowly(log: Path, stop: threading.Event) -> None:
    """A log daemon that comes by four times a second."""
    import fcntl

    descriptor = os.open(log, os.O_RDWR)
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(descriptor, False)
    while not stop.wait(0.25):
        _read_all(descriptor)
    ends_at = time.monotonic() + 3  # nginx may still be in a write()
    while time.monotonic() < ends_at:
        _read_all(descriptor)
        time.sleep(0.1)
    os.close(descriptor)


def _read_all(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        pass


def _get(port: int, ends_at: float) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.monotonic() < ends_at:
            connection.sendall(b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n")
            received = 0
            while received < 4096:
                received += len(connection.recv(65536))


def _redis(scratch: Path, seconds: float) -> Server:
    port = _free_port()
    command = [_path("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(scratch)]
    command += ["--enable-debug-command", "yes"]

    def drive(seconds: float) -> None:
        _until(lambda: _answers(port), "redis")
        threads = [threading.Thread(target=_set, args=(port, time.monotonic() + seconds)) for _ in range(3)]
        threads.append(threading.Thread(target=_sleep, args=(port, time.monotonic() + seconds)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _say(port, b"SHUTDOWN NOSAVE\r\n")

    return Server("redis", command, drive, "nanosleep|clock_nanosleep", None)


def _set(port: int, ends_at: float) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.monotonic() < ends_at:
            connection.sendall(b"SET key value\r\n")
            connection.recv(1024)


def _sleep(port: int, ends_at: float) -> None:
    while time.monotonic() < ends_at:
        _say(port, b"DEBUG SLEEP 0.05\r\n")
        time.sleep(0.5)


def _say(port: int, command: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(command)
        connection.recv(1024)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _path(program: str) -> str:
    return shutil.which(program) or sys.exit(f"{program} is not installed")


SERVERS: dict[str, Callable[[Path, float], Server]] = {"sample": _sample, "nginx": _nginx, "redis": _redis}


def _strace(folder: Path, server: str) -> Tool:
    output = str(folder / f"{server}.strace.txt")
    return Tool("strace", ["strace", "-f", "-ttt", "-T", "-yy", "-o", output])


def _perf_trace(folder: Path, server: str) -> Tool:
    output = str(folder / f"{server}.perf-trace.txt")
    return Tool("perf-trace", ["perf", "trace", "-m", "4096", "-o", output])


def _perf_script(folder: Path, server: str) -> Tool:
    data = str(folder / f"{server}.perf.data")
    record = ["perf", "record", "-q", "-a", "-m", "4096", "-e", f"{CALLS},{SCHEDULER}", "-o", data, "--"]
    return Tool("perf-script", record, ["perf", "script", "--show-lost-events", "-i", data], names_paths=False)


TOOLS: dict[str, Callable[[Path, str], Tool]] = {
    "strace": _strace,
    "perf-trace": _perf_trace,
    "perf-script": _perf_script,
}

if __name__ == "__main__":
    main()
