"""The kinds of stall: what blocks, what has to happen before, and what is to be found.

In each function the line that blocks is the last one, or a loop to the end, unless its ``Kind`` says otherwise.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import re
import select
import socket
import subprocess
import time

from tests.zoo.program.stage import ADDRESS, STALL_NS, STALL_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Sequence, Tuple

    from tests.zoo.program.stage import Stage


def open_fifo(stage: Stage) -> None:
    stage.fd = os.open(stage.path("opened"), os.O_RDONLY)


def open_slow_file(stage: Stage) -> None:
    stage.fd = os.open(stage.path("slow/opened"), os.O_RDONLY)


def stat_slow_file(stage: Stage) -> None:
    os.stat(stage.path("slow/stat"))


def read_fifo(stage: Stage) -> None:
    os.read(stage.fifo, 1)


def write_pipe(stage: Stage) -> None:
    os.write(stage.full, b"x")


def log(stage: Stage) -> None:
    stage.logger.warning("one more line")


def sync_file(stage: Stage) -> None:
    os.fsync(stage.dirty)


def sleep(stage: Stage) -> None:
    time.sleep(STALL_S)


def connect(stage: Stage) -> None:
    stage.caller.connect_ex(stage.black_hole)


def connect_within(stage: Stage) -> None:
    try:
        socket.create_connection(stage.black_hole, timeout=STALL_S)
    except OSError:
        pass


def receive(stage: Stage) -> None:
    stage.silent.recv(1)


def resolve(stage: Stage) -> None:
    socket.getaddrinfo("slow.zoo.test", 80, socket.AF_INET, socket.SOCK_STREAM)


def run_child(stage: Stage) -> None:
    subprocess.run(["sleep", str(STALL_S)], check=True)


def commit(stage: Stage) -> None:
    stage.database.commit()


def wait_by_select(stage: Stage) -> None:
    select.select([stage.fifo], [], [], STALL_S)


def wait_by_poll(stage: Stage) -> None:
    stage.poll.poll(STALL_S * 1000)


def lock_file(stage: Stage) -> None:
    fcntl.flock(stage.locked, fcntl.LOCK_EX)


def lock_record(stage: Stage) -> None:
    fcntl.lockf(stage.locked, fcntl.LOCK_EX)


def take_lock(stage: Stage) -> None:
    stage.lock.acquire()


def want_gil(stage: Stage) -> None:
    stage.let_hog_run()
    end = time.monotonic_ns() + STALL_NS
    while time.monotonic_ns() < end:
        os.stat("/")  # gives the GIL up, and has to wait until the other thread does
    stage.hogging = False


def dump(stage: Stage) -> None:
    json.dumps(stage.document)


def match(stage: Stage) -> None:
    re.match(r"(?:a+)+$", stage.hopeless)


def compute(stage: Stage) -> None:
    end = time.monotonic_ns() + STALL_NS
    while time.monotonic_ns() < end:
        for number in range(500):
            stage.total += number * number


def collect(stage: Stage) -> None:
    gc.collect()


def import_late(stage: Stage) -> None:
    import big_package  # noqa: F401 - the stage has made it


def stat_many(stage: Stage) -> None:
    for path in stage.inodes:
        os.stat(path)


def be_stopped(stage: Stage) -> Tuple[int, int]:
    now = last = time.monotonic_ns()
    end = now + 8 * STALL_NS
    while now - last < STALL_NS // 2 and now < end:
        last, now = now, time.monotonic_ns()
    return last, now


def compute_among_hogs(stage: Stage) -> None:
    end = time.thread_time_ns() + STALL_NS // 5
    while time.thread_time_ns() < end:
        for number in range(500):
            stage.total += number * number


class Kind:
    """One kind; see ``truth.Truth`` for what the words mean. ``request``: what the companion is asked for before."""

    def __init__(
        self,
        blocks: Callable[[Any], Any],
        cause: str,
        calls: Sequence[str] = (),
        *,
        lines: Sequence[int] = (1, 1),
        nature: str = "blocked",
        resource: str = "",
        exact: bool = True,
        request: str = "",
    ) -> None:
        self.blocks, self.cause, self.calls, self.nature, self.exact = blocks, cause, list(calls), nature, exact
        self.resource, self.request = resource, request
        first = blocks.__code__.co_firstlineno
        self.lines: List[int] = [first + line for line in lines]  # counted from "def"


_STAT = ("stat", "newfstatat", "statx")
_SLEEP = ("clock_nanosleep", "nanosleep", "select", "pselect6")  # as the interpreter and its libc will have it
_LOCK = ("futex", "sem_wait", "pthread_cond_wait")
_CALL = "blocking-syscall"
KINDS: Dict[str, Kind] = {
    "open FIFO": Kind(open_fifo, _CALL, ["openat"], resource="/opened", request="open"),
    "open, slow disk": Kind(open_slow_file, _CALL, ["openat"], resource="/slow/opened"),
    "stat, slow disk": Kind(stat_slow_file, _CALL, _STAT, resource="/slow/stat"),
    "read FIFO": Kind(read_fifo, _CALL, ["read"], resource="/fifo", request="fifo"),
    "write to pipe": Kind(write_pipe, _CALL, ["write"], resource="/full", request="drain"),
    "logging": Kind(log, _CALL, ["write"], resource="/full", request="drain", nature="waited"),
    "fsync": Kind(sync_file, _CALL, ["fsync"], resource="/dirty", request="dirty"),
    "time.sleep": Kind(sleep, _CALL, _SLEEP),
    "connect": Kind(connect, _CALL, ["connect"], resource=ADDRESS),
    "connect, timeout": Kind(
        connect_within, _CALL, ["connect", "poll"], lines=(2, 2), resource=ADDRESS, nature="waited"
    ),
    "recv": Kind(receive, _CALL, ["recvfrom"], resource=ADDRESS, request="send"),
    "getaddrinfo": Kind(resolve, _CALL, ["getaddrinfo"], resource="slow.zoo.test"),
    "subprocess.run": Kind(run_child, _CALL, ["wait4", "waitid"], exact=False),
    "sqlite commit": Kind(commit, _CALL, _SLEEP, exact=False, request="select"),
    "select": Kind(wait_by_select, _CALL, ["select", "pselect6"]),
    "poll": Kind(wait_by_poll, _CALL, ["poll", "ppoll"]),
    "flock": Kind(lock_file, _CALL, ["flock"], resource="/locked", request="flock"),
    "fcntl lock": Kind(lock_record, _CALL, ["fcntl"], resource="/locked", request="lockf"),
    "threading.Lock": Kind(take_lock, "lock-wait", _LOCK),
    "GIL hog": Kind(want_gil, "gil-wait", ["gil"], lines=(3, 4), nature="waited", exact=False),
    "json.dumps": Kind(dump, "native-cpu", nature="ran"),
    "regex": Kind(match, "native-cpu", nature="ran"),
    "CPU loop": Kind(compute, "python-cpu", lines=(2, 4), nature="ran"),
    "gc.collect": Kind(collect, "gc", nature="ran"),
    "import": Kind(import_late, "import", nature="ran", exact=False),
    "1000 stats": Kind(stat_many, _CALL, _STAT, lines=(1, 2), nature="ran", resource="/inodes/", exact=False),
    "SIGSTOP": Kind(be_stopped, "suspended", lines=(), request="stop"),
    "CPU hog": Kind(compute_among_hogs, "descheduled", lines=(), nature="delayed", request="hogs"),
}
