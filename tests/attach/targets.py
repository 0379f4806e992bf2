"""Starts targets, attaches to them, and checks every byte of an echo server meanwhile."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stallscope.attach.facts import Facts
from stallscope.attach.methods import AUTO
from stallscope.attach.payload import Modules
from stallscope.attach.session import Boarded, come_aboard, leave
from stallscope.collect.collector import Collector
from stallscope.pulse import library
from stallscope.recording.writer import Writer

PROGRAM = Path(__file__).with_name("target.py")
PATIENCE_S = 30
PULSE = library()
"""What comes aboard with the agent, as in ``stallscope attach``; None where there is none."""


@dataclass(frozen=True)
class Usage:
    """Resident memory in KiB, and how many descriptors, threads and mappings."""

    rss_kib: int
    fds: int
    threads: int
    maps: int

    def since(self, before: Usage) -> str:
        """What has changed."""
        return (
            f"RSS {self.rss_kib - before.rss_kib:+} KiB, fds {self.fds - before.fds:+}, "
            f"threads {self.threads - before.threads:+}, mappings {self.maps - before.maps:+}"
        )


class Target:
    """One running target program."""

    def __init__(self, executable: str, kind: str, before: str = "") -> None:
        self.kind = kind
        program = [str(PROGRAM), kind]
        if before:  # statements to run first
            program = ["-c", f"import sys; sys.argv = {program!r}; {before}\nexec(open({str(PROGRAM)!r}).read())"]
        self.process = subprocess.Popen(
            [executable, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words[:1] == ["ready"], self.process.communicate()[1]
        self.port = int(words[1]) if words[1:] else 0

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid

    def report(self) -> dict[str, Any]:
        """What it says of itself (``target.report``)."""
        return self._asked("report")

    def longest_s(self) -> float:
        """The longest time for which the kind that computes did not come to look at its clock, since last asked."""
        return float(self._asked("longest")["longest_s"])

    def usage(self) -> Usage:
        """What it uses, as the kernel counts it."""
        with open(f"/proc/{self.pid}/smaps_rollup") as rollup:
            resident = next(int(line.split()[1]) for line in rollup if line.startswith("Rss:"))
        maps = Path(f"/proc/{self.pid}/maps").read_text().count("\n")
        return Usage(resident, len(os.listdir(f"/proc/{self.pid}/fd")), len(os.listdir(f"/proc/{self.pid}/task")), maps)

    def _asked(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def settled(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Its report, once it is as wanted, or at the end of our patience: a thread needs a moment to end."""
        limit = time.monotonic() + PATIENCE_S
        while (found := self.report()) != wanted and time.monotonic() < limit:
            time.sleep(0.01)
        return found

    def end(self) -> str:
        """Kill it; what it wrote to stderr."""
        self.process.kill()
        return self.process.communicate()[1]


@contextmanager
def running(executable: str, kind: str) -> Iterator[Target]:
    """A target that is killed at the end; it must have been alive until then, and silent on stderr."""
    target = Target(executable, kind)
    try:
        yield target
        assert target.process.poll() is None
    except BaseException:  # what it said before it ended tells more than what then failed here
        print(f"the target: exit code {target.process.poll()}, stderr {target.end()!r}", file=sys.stderr)
        raise
    else:
        complaints = target.end()
    assert complaints == ""


@contextmanager
def stay(
    target: Target | subprocess.Popen[Any] | Facts, path: Path, modules: Modules | None = None, method: str = AUTO, *,
    pulse: Path | None = PULSE,
) -> Iterator[tuple[Collector, Boarded]]:  # fmt: skip
    """Come aboard, and leave at the end."""
    now_ns = time.monotonic_ns()
    writer = Writer(
        path, source="stallscope", threshold_ns=10_000_000, started_ns=now_ns, started_wall_s=time.time(), force=True
    )
    with Collector(writer, pulse=pulse) as collector:
        try:
            yield collector, come_aboard(Facts(target.pid), collector, 10_000_000, modules, method)
        finally:
            leave(collector)


def assert_seen(collector: Collector) -> None:
    """Iterations come in. A drain may wait for a busy disk as long as we have patience: one more follows it."""
    limit, is_last = time.monotonic() + PATIENCE_S, False
    while not collector.iterations and not is_last:
        is_last = time.monotonic() >= limit
        collector.drain()
        time.sleep(0.001)
    assert collector.iterations


class Client:
    """Sends random bytes to an echo server, and compares what comes back, until it is ended."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(PATIENCE_S)
        self._ended = False
        self.exchanges = 0
        self.wrong = ""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Stop; ``wrong`` says what was amiss."""
        self._ended = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._ended and not self.wrong:
            sent = os.urandom(random.randint(1, 8192))
            try:
                self._socket.sendall(sent)
                if sent != self._received(len(sent)):
                    self.wrong = "other bytes came back"
            except OSError as error:
                self.wrong = repr(error)
            self.exchanges += 1

    def _received(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._socket.recv(length - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data
