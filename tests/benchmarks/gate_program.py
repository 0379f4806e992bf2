"""The program of the gate's studies: a small server and its clients in one process; standard library only.

``python gate_program.py SECONDS REQUESTS REGRESSION SIDECAR [count]`` works for so long, and on until it answered so
many requests, with one of `REGRESSIONS` built in.  In SIDECAR (JSON) it leaves the latency of every request, which is
what a benchmark of the server would compare; and with ``count`` what a recording by the agent alone cannot hold: every
blocking call that was made inside an iteration, counted and timed where it was made, as the pulse does.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Coroutine
from typing import Any

REGRESSIONS = ("none", "call", "stall", "slower", "open", "cpu")
"""What each is: see `tests.benchmarks.gate`."""

CLIENTS = 3
SEED = 20
STALL_EVERY = 100
"""Searches: a fifth of the requests, of which each takes about two iterations."""

regression = "none"


class Calls:
    """Counts and times blocking calls made inside an iteration, by stack."""

    def __init__(self) -> None:
        self.sites: dict[tuple[Any, ...], list[int]] = {}

    def watch(self, owner: Any, name: str, call: str, kind: str) -> None:
        """Replace a blocking function by one that counts."""
        real = getattr(owner, name)

        def counted(*args: Any, **more: Any) -> Any:
            if asyncio._get_running_loop() is None:
                return real(*args, **more)
            begun = time.perf_counter_ns()
            try:
                return real(*args, **more)
            finally:
                self._add(call, kind, time.perf_counter_ns() - begun)

        setattr(owner, name, counted)

    def _add(self, call: str, kind: str, spent_ns: int) -> None:
        stack, frame = [], sys._getframe(2)
        while frame is not None and "/asyncio/" not in frame.f_code.co_filename:
            stack.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname))
            frame = frame.f_back  # type: ignore[assignment]
        totals = self.sites.setdefault((call, kind, *stack), [0, 0, 0])
        totals[0] += 1
        totals[1] += spent_ns
        totals[2] = max(totals[2], spent_ns)


def work(rounds: int) -> int:
    """Pure Python that computes: about 60 ns a round."""
    total = 0
    for number in range(rounds):
        total += number * number % 7
    return total


def render(name: str, value: int) -> bytes:
    """What all five handlers share."""
    if regression == "open":
        with open("/etc/hostname", "rb") as file:
            file.read(1)
    return f"{name} {value}\n".encode()


class Server:
    """Five handlers: three of them block already, for a moment as a rule."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.log = os.open(os.path.join(directory, "log"), os.O_WRONLY | os.O_CREAT)
        self.puts = self.searches = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client's requests, a line each."""
        while line := await reader.readline():
            writer.write(await asyncio.create_task(getattr(self, line.decode().strip())()))
        writer.close()

    async def get(self) -> bytes:
        """Computes a little."""
        if regression == "call":
            time.sleep(0.0003)
        return render("get", work(300))

    async def search(self) -> bytes:
        """Computes: the heaviest handler."""
        self.searches += 1
        if regression == "stall" and self.searches % STALL_EVERY == 0:
            spin(0.020)
        return render("search", work(2600 if regression == "cpu" else 2000))

    async def put(self) -> bytes:
        """Writes a line of the log; each 200th time it waits for the disk."""
        self.puts += 1
        os.write(self.log, b"put\n")
        if self.puts % 200 == 0:
            self.checkpoint()
        return render("put", work(200))

    def checkpoint(self) -> None:
        """Stands for a disk: 4 ms."""
        time.sleep(0.016 if regression == "slower" else 0.004)

    async def status(self) -> bytes:
        """Asks the file system."""
        return render("status", os.stat(self.directory).st_nlink)

    async def list(self) -> bytes:
        """Asks the file system."""
        return render("list", len(os.listdir(self.directory)))


def spin(seconds: float) -> None:
    """Computes for so long, of CPU time: in no call."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def client(port: int, seed: int, until: float, requests: int, latencies: list[int]) -> None:
    """Asks one thing after another."""
    choose = random.Random(seed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until or len(latencies) < requests:
        begun = time.perf_counter_ns()
        writer.write(choose.choice((b"get\n", b"search\n", b"put\n", b"status\n", b"list\n")))
        await reader.readline()
        latencies.append(time.perf_counter_ns() - begun)
    writer.close()


async def serve(seconds: float, requests: int, directory: str) -> list[int]:
    """The latencies of all requests, ns."""
    server = Server(directory)
    latencies: list[int] = []
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    until = time.monotonic() + seconds
    clients: list[Coroutine[Any, Any, None]] = [
        client(port, SEED + n, until, requests, latencies) for n in range(CLIENTS)
    ]
    await asyncio.gather(*clients)
    listening.close()
    return latencies


def main(seconds: float, requests: int, sidecar: str, count: bool) -> None:
    """Serve, and leave the sidecar."""
    calls = Calls()
    watched: tuple[tuple[Any, str, str, str], ...] = (
        (os, "write", "write", "path"),
        (os, "stat", "stat", "path"),
        (os, "listdir", "getdents64", "path"),
        (time, "sleep", "clock_nanosleep", "timer"),
        (builtins, "open", "openat", "path"),
    )
    for owner, name, call, kind in watched if count else ():
        calls.watch(owner, name, call, kind)
    cpu = time.thread_time()
    with tempfile.TemporaryDirectory() as directory:
        latencies = asyncio.run(serve(seconds, requests, directory))
    cpu = time.thread_time() - cpu
    sites = [[call, kind, stack, totals] for (call, kind, *stack), totals in calls.sites.items()]
    with open(sidecar, "w", encoding="ascii") as file:
        json.dump({"sites": sites, "latencies_ns": sorted(latencies), "cpu_s": cpu}, file)


if __name__ == "__main__":
    regression = sys.argv[3]
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[4], sys.argv[5:] == ["count"])
