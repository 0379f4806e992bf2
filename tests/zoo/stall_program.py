"""The observed program of the truth bench: stalls of known kind, length and line; standard library only, Python 3.8+.

``stall_program.py stalls TRUTH DIRECTORY EACH SEED`` makes EACH stalls of every kind, in random order with healthy
iterations between them, and writes what it did to TRUTH: a line of JSON for each stall, times in ns on the monotonic
clock.  ``stall_program.py clean ITERATIONS`` never stalls.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import random
import subprocess
import sys
import threading
import time
from typing import IO, Any

STALL_S = 0.05
STALL_NS = 50_000_000
_MOST_BYTES = 256 << 20  # of a file that is made dirty


def sleep(bench: Bench) -> None:  # in each of these the blocking line is the last one, or a loop to the end
    time.sleep(STALL_S)


def read_fifo(bench: Bench) -> None:
    os.read(bench.fifo, 1)


def sync_file(bench: Bench) -> None:
    os.fsync(bench.file)


def lock_file(bench: Bench) -> None:
    fcntl.flock(bench.locked_file, fcntl.LOCK_EX)


def take_lock(bench: Bench) -> None:
    bench.lock.acquire()


def compute(bench: Bench) -> None:
    end = time.monotonic_ns() + STALL_NS
    while time.monotonic_ns() < end:
        for number in range(500):
            bench.total += number * number


def collect(bench: Bench) -> None:
    gc.collect()


# kind: (what blocks, lines of it that are right, counted from its "def"; cause; calls, any of which is right)
_SLEEPS = ["clock_nanosleep", "nanosleep", "select", "pselect6"]  # as the interpreter and its libc will have it
KINDS: dict[str, tuple[Any, tuple[int, int], str, list[str]]] = {
    "time.sleep": (sleep, (1, 1), "blocking-syscall", _SLEEPS),
    "FIFO read": (read_fifo, (1, 1), "blocking-syscall", ["read"]),
    "fsync": (sync_file, (1, 1), "blocking-syscall", ["fsync"]),
    "flock": (lock_file, (1, 1), "blocking-syscall", ["flock"]),
    "threading.Lock": (take_lock, (1, 1), "lock-wait", ["futex"]),
    "CPU loop": (compute, (2, 4), "python-cpu", []),
    "gc.collect": (collect, (1, 1), "gc", []),
}


class Bench:
    """What the stalls need: files, a lock, a heap, and a companion process that makes us wait."""

    def __init__(self, directory: str) -> None:
        self.total = 0
        self.lock = threading.Lock()
        os.mkfifo(os.path.join(directory, "fifo"))
        self.fifo = os.open(os.path.join(directory, "fifo"), os.O_RDWR)
        self.file = os.open(os.path.join(directory, "dirty"), os.O_RDWR | os.O_CREAT)
        self.locked_file = os.open(os.path.join(directory, "locked"), os.O_RDWR | os.O_CREAT)
        self.dirty_bytes = _slow_sync(self.file)
        self.heap = _slow_heap()
        command = [sys.executable, __file__, "companion", directory]
        self._companion = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    async def prepare(self, kind: str) -> None:
        """Sees to it that the stall will last; without one of its own."""
        if kind == "threading.Lock":
            await self._lend_lock()
        elif kind == "flock":
            fcntl.flock(self.locked_file, fcntl.LOCK_UN)
            await self._ask("flock")
        elif kind == "FIFO read":
            await self._ask("fifo")
        elif kind == "fsync":
            await self._ask(f"dirty {self.dirty_bytes}")

    def close(self) -> None:
        """Lets the companion go."""
        self._companion.communicate()

    async def _ask(self, request: str) -> None:
        pipe: Any = self._companion.stdin
        pipe.write(request.encode() + b"\n")
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._answers, answered.set)
        await answered.wait()
        loop.remove_reader(self._answers)
        self._answers.read(1)

    @property
    def _answers(self) -> IO[bytes]:
        assert self._companion.stdout is not None
        return self._companion.stdout

    async def _lend_lock(self) -> None:
        loop, lent = asyncio.get_running_loop(), asyncio.Event()
        if self.lock.locked():
            self.lock.release()

        def hold() -> None:
            with self.lock:
                loop.call_soon_threadsafe(lent.set)
                time.sleep(STALL_S)

        threading.Thread(target=hold).start()
        await lent.wait()


def _slow_sync(file: int) -> int:
    """How many bytes have to be dirty for an fsync of about a stall's length, as far as that can be had here."""
    size = 4 << 20
    while size < _MOST_BYTES:
        os.pwrite(file, os.urandom(size), 0)
        begun = time.monotonic_ns()
        os.fsync(file)
        if time.monotonic_ns() - begun >= STALL_NS:
            break
        size *= 2
    return size


def _slow_heap() -> list[list[list[int]]]:
    """Objects enough for a collection of a stall's length."""
    heap: list[list[list[int]]] = []
    gc.disable()  # else it would run where no stall is wanted
    spent = 0
    while spent < STALL_NS:
        heap.append([[number] for number in range(50_000)])
        begun = time.monotonic_ns()
        gc.collect()
        spent = time.monotonic_ns() - begun
    return heap


def accompany(directory: str) -> None:
    """The companion: makes the program wait for what another process does."""
    fifo = os.open(os.path.join(directory, "fifo"), os.O_RDWR)
    file = os.open(os.path.join(directory, "dirty"), os.O_RDWR)
    locked = os.open(os.path.join(directory, "locked"), os.O_RDWR)
    data = os.urandom(_MOST_BYTES >> 4)
    for line in sys.stdin:
        request, *size = line.split()
        if request == "flock":
            fcntl.flock(locked, fcntl.LOCK_EX)
        for at in range(0, int(size[0]) if size else 0, len(data)):
            os.pwrite(file, data[: int(size[0]) - at], at)
        os.write(1, b".")
        if request == "fifo":
            time.sleep(STALL_S)
            os.write(fifo, b"x")
        elif request == "flock":
            time.sleep(STALL_S)
            fcntl.flock(locked, fcntl.LOCK_UN)


async def handle(bench: Bench, kind: str) -> dict[str, object]:
    """One stall: times around what blocks, and around the whole handler."""
    entered = time.monotonic_ns()
    blocks, lines, cause, calls = KINDS[kind]
    first = blocks.__code__.co_firstlineno
    truth: dict[str, object] = {"kind": kind, "cause": cause, "calls": calls, "file": __file__}
    truth["lines"] = [first + lines[0], first + lines[1]]
    delayed, ran, start = _run_delay_ns(), time.thread_time_ns(), time.monotonic_ns()
    blocks(bench)
    end, ran, delayed = time.monotonic_ns(), time.thread_time_ns() - ran, _run_delay_ns() - delayed
    truth.update(start_ns=start, end_ns=end, cpu_ns=ran, run_delay_ns=delayed)
    truth.update(entered_ns=entered, left_ns=time.monotonic_ns())
    return truth


def _run_delay_ns() -> int:
    """How long this thread has waited for a CPU: not the stall's own doing."""
    with open("/proc/thread-self/schedstat") as file:
        return int(file.read().split()[1])


async def stalls(bench: Bench, truth_file: str, each: int, seed: int) -> None:
    """Every kind ``each`` times, in random order, with healthy iterations between them."""
    chance = random.Random(seed)
    order = [kind for kind in KINDS for _ in range(each)]
    chance.shuffle(order)
    with open(truth_file, "w") as out:
        for kind in order:
            for _ in range(chance.randrange(5, 50)):
                await asyncio.sleep(0)
            await asyncio.sleep(0.02 * chance.random())
            await bench.prepare(kind)
            truth = await asyncio.get_running_loop().create_task(handle(bench, kind))
            out.write(json.dumps(truth) + "\n")


async def clean(iterations: int) -> None:
    """Nothing but short iterations: callbacks that call each other, and a task that yields."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    left = iterations

    def ping() -> None:
        loop.call_soon(pong)

    def pong() -> None:
        nonlocal left
        left -= 2
        if left > 0:
            loop.call_soon(ping)
        else:
            over.set()

    loop.call_soon(ping)
    while not over.is_set():
        for _ in range(100):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)


def main() -> None:
    """Does what the first argument says."""
    mode, *rest = sys.argv[1:]
    if mode == "companion":
        accompany(rest[0])
    elif mode == "clean":
        asyncio.run(clean(int(rest[0])))
    else:
        bench = Bench(rest[1])
        asyncio.run(stalls(bench, rest[0], int(rest[2]), int(rest[3])))
        bench.close()


if __name__ == "__main__":
    main()
