"""What stallscope costs an echo server, beside what else tells why a loop stalls:

``python -m tests.benchmarks.rivals [--python PATH] [--loop uvloop] [--pairs 10] [--seconds 1]``

The server (``workload``) is saturated by four clients, which nobody observes. Each way of observing it has a turn in
every round, in a new order, and the bare server one before and after each: a figure is held against the mean of the two
next to it, so that a machine whose speed drifts does not decide. Printed are medians over the rounds, with quartiles:
the throughput, the server's own CPU time for a request, and the same with the observer's. ``bare again`` is the noise.

bpftrace, strace and perf (Debian: bpftrace, strace, linux-perf; root) are left out, with the reason, where they
are not or may not run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.benchmarks.captures import witnessing
from tests.benchmarks.cost import PROGRAM, environment_for, spread
from tests.benchmarks.workload import ask
from tests.zoo.stalls import LOOPS

_STALLSCOPE = (sys.executable, "-m", "stallscope")
_CLIENTS = 4
_WARM_S = 0.2
_CALLS = "epoll_wait,epoll_pwait,read,write,openat,recvfrom,sendto,connect,fsync,futex"
_WAITS = {"x86_64": (232, 281), "aarch64": (22,)}  # epoll_wait, epoll_pwait
_BPFTRACE = """
tracepoint:raw_syscalls:sys_enter /pid == PID/ {
  @entered[tid] = nsecs;
  if ((WAITS) && @since[tid]) { @usecs[tid] = hist((nsecs - @since[tid]) / 1000); }
}
tracepoint:raw_syscalls:sys_exit /pid == PID && @entered[tid]/ {
  @calls[args->id] = hist((nsecs - @entered[tid]) / 1000);
  if (WAITS) { @since[tid] = nsecs; }
}
END { clear(@since); clear(@entered); }
"""

Beside = Callable[[int, Path], AbstractContextManager[int]]


@contextmanager
def _nobody(server: int, folder: Path) -> Iterator[int]:
    yield server


@contextmanager
def _attached(server: int, folder: Path) -> Iterator[int]:
    command = ["attach", str(server), "--duration", "60min", "-o", str(folder / "attach.stall")]
    with subprocess.Popen([*_STALLSCOPE, *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = [process.stderr.readline(), process.stderr.readline()]
        if "aboard" not in said[1]:
            sys.exit(f"{said[0]}leave attach out with --way")
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


@contextmanager
def _traced_by_bpftrace(server: int, folder: Path) -> Iterator[int]:
    waits = " || ".join(f"args->id == {number}" for number in _WAITS[platform.machine()])
    program = _BPFTRACE.replace("PID", str(server)).replace("WAITS", waits)
    with witnessing(folder / "bpftrace.txt", program) as bpftrace:
        yield bpftrace.pid
    assert "@usecs" in (folder / "bpftrace.txt").read_text(), "bpftrace saw no iteration"


@dataclass(frozen=True)
class Way:
    """One way to observe the server: words before its command, more environment, or a process beside it."""

    name: str
    prefix: tuple[str, ...] = ()
    more: dict[str, str] = field(default_factory=dict)
    beside: Beside = _nobody
    probe: tuple[str, ...] = ("true",)
    """A command that ends well where this may run."""

    def obstacle(self) -> str:
        """Why it cannot run here, or nothing."""
        if shutil.which(self.probe[0]) is None:
            return f"{self.probe[0]} is not installed"
        done = subprocess.run(self.probe, capture_output=True, text=True)
        return (done.stderr.strip().splitlines() or ["no reason was given"])[-1] if done.returncode else ""


def _run(*options: str) -> tuple[str, ...]:
    return (*_STALLSCOPE, "run", "--force", "-o", "FOLDER/run.stall", *options, "--")


def _strace(*options: str) -> tuple[str, ...]:
    return ("strace", "-f", "-o", "/dev/null", "-T", "-ttt", *options)


_BARE = Way("bare")
_PERF_TRACE = ("perf", "trace", "-o", "/dev/null")
WAYS = (
    Way("bare again"),
    Way("stallscope run", _run()),
    Way("run --no-pulse", _run("--no-pulse")),
    Way("stallscope attach", beside=_attached),
    Way("asyncio's debug mode", more={"PYTHONASYNCIODEBUG": "1"}),
    Way("bpftrace", beside=_traced_by_bpftrace, probe=("bpftrace", "-e", "BEGIN { exit(); }")),
    Way("perf trace", _PERF_TRACE, probe=(*_PERF_TRACE, "true")),
    Way("strace, the calls that matter", _strace("-e", f"trace={_CALLS}"), probe=(*_strace(), "true")),
    Way("strace", _strace(), probe=(*_strace(), "true")),
)


class Figures(NamedTuple):
    """Of one turn."""

    per_s: float
    cpu_ns: float
    """CPU time of the server for a request."""
    all_ns: float
    """The same, and the observer's."""

    def against(self, before: Figures, after: Figures) -> list[float]:
        """All three as ratios to the mean of two turns of the bare server."""
        return [2 * mine / (first + second) for mine, first, second in zip(self, before, after, strict=True)]


def main() -> None:
    """Print one row a way."""
    options = _options()
    ways = [way for way in WAYS if not options.way or way.name in options.way]
    obstacles = {way.name: why for way in ways if (why := way.obstacle())}
    ways = [way for way in ways if way.name not in obstacles]
    ratios: dict[str, list[list[float]]] = {way.name: [] for way in ways}
    bare = [measure(_BARE, options)]
    for _ in range(options.pairs):
        for way in random.sample(ways, len(ways)):
            seen = measure(way, options)
            bare.append(measure(_BARE, options))
            ratios[way.name].append(seen.against(*bare[-2:]))
    print(_bare(bare), f"({options.python}, {options.loop}, load {os.getloadavg()[0]:.1f} at the end)")
    print(f"{'of bare':30} {'throughput':>22} {'CPU, the server':>22} {'CPU, observer too':>22}")
    for name, rows in ratios.items():
        print(f"{name:30} " + " ".join(f"{spread(column, _shown):>22}" for column in zip(*rows, strict=True)))
    for name, why in obstacles.items():
        print(f"{name:30} left out: {why}")


def _bare(turns: list[Figures]) -> str:
    per_s = spread([one.per_s for one in turns], lambda value: f"{value:,.0f}")
    return f"bare: {per_s} requests/s, {spread([one.cpu_ns / 1e3 for one in turns], _shown)} µs of CPU each"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rivals", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--way", action="append", choices=[way.name for way in WAYS], help="only that one")
    parser.add_argument("--pairs", type=int, default=10, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    return parser.parse_args()


def _shown(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:.1f}"


def measure(way: Way, options: argparse.Namespace) -> Figures:
    """One turn: the server is started, observed, warmed up, asked, and killed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [word.replace("FOLDER", folder) for word in way.prefix]
        command += [options.python, PROGRAM, "serve", options.loop]
        environment = {**environment_for(options.python, options.loop), **way.more}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            assert process.stdout is not None
            server = json.loads(process.stdout.readline())
            try:
                with way.beside(server["pid"], Path(folder)) as observer:
                    return _figures(server["port"], server["pid"], {process.pid, observer}, options.seconds)
            finally:
                os.kill(server["pid"], signal.SIGTERM)
                process.wait(timeout=60)


def _figures(port: int, server: int, observers: set[int], seconds: float) -> Figures:
    _asked(port, _WARM_S)
    others = {child.pid for parent in observers for child in psutil.Process(parent).children(recursive=True)}
    others = (others | observers) - {server}
    before = _cpu_ns(server), sum(map(_cpu_ns, others))
    per_s, requests = _asked(port, seconds)
    own = (_cpu_ns(server) - before[0]) / requests
    return Figures(per_s, own, own + (sum(map(_cpu_ns, others)) - before[1]) / requests)


def _cpu_ns(pid: int) -> int:
    """CPU time of a process' threads so far: the kernel's own figure, for times in /proc/PID/stat are whole ticks."""
    spent = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            spent += int(file.read_text().split()[0])
    return spent


def _asked(port: int, seconds: float) -> tuple[float, int]:
    """Requests a second, and requests, of the clients that ask for so long."""
    fork = multiprocessing.get_context("fork")
    ready, counts = fork.Barrier(_CLIENTS), fork.SimpleQueue()

    def client() -> None:
        begun_at = [0.0]

        def times() -> Iterator[int]:  # runs from when all are ready
            begun_at[0] = time.monotonic()
            while time.monotonic() < begun_at[0] + seconds:
                yield 0

        asked = ask(port, times(), ready)
        counts.put((asked, asked / (time.monotonic() - begun_at[0])))

    clients = [fork.Process(target=client) for _ in range(_CLIENTS)]
    for process in clients:
        process.start()
    answers = [counts.get() for _ in clients]
    for process in clients:
        process.join()
    return sum(rate for _, rate in answers), sum(asked for asked, _ in answers)


if __name__ == "__main__":
    main()
