"""Drains every observed process into one recording, ten times a second."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns
from typing import Any

from stallscope.collect.memory_reader import MemoryReader
from stallscope.collect.observed import Observed
from stallscope.collect.stalls import MALFORMED
from stallscope.errors import NotObservable
from stallscope.pulse import LIBRARY
from stallscope.recording.file import RecordingStopped
from stallscope.recording.nouns import Missing, Stall
from stallscope.recording.writer import Writer

DRAIN_S = 0.1
_SLOW_NS = 1_000_000_000
_CHILDREN_ASKED = 16
_GREETING_S = 1.0  # a process may be stopped between its connection and its greeting; others must not wait for it


def library_unless(obstacle: str | None, writer: Writer) -> Path | None:
    """The pulse's library; where something is in the way, None, and the recording says what it lacks, and why."""
    if obstacle is not None:
        writer.missing(Missing("calls timed exactly", obstacle))
        return None
    return LIBRARY


class Collector:
    """Listens for agents, and keeps what they measure. Use as a context manager.

    When the recording has to stop (a full disk), ``stopped`` says why, and the targets go on.
    """

    def __init__(self, writer: Writer, clock: Callable[[], int] = monotonic_ns, *, pulse: Path | None = None) -> None:
        self._writer = writer
        self._clock = clock
        self.pulse = pulse  # the library that comes aboard with the agents; where it does not, the recording says so
        self._directory = tempfile.mkdtemp(prefix="stallscope-")  # mode 0700
        self.socket_path = str(Path(self._directory) / "agents")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(self.socket_path)
        self._socket.listen(socket.SOMAXCONN)  # a server may fork all its workers at once
        self._socket.setblocking(False)
        self._observed: list[Observed] = []
        self._over: list[Observed] = []
        self._slow_at_ns = 0
        self._suppressed = 0
        self.stopped = ""

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def processes(self) -> list[Observed]:
        """Every process that came aboard, those that are over too."""
        return self._over + self._observed

    @property
    def is_anyone_left(self) -> bool:
        """Whether an agent still observes a process."""
        return not all(observed.is_over for observed in self._observed)

    @property
    def iterations(self) -> int:
        """Iterations counted so far, in all processes."""
        return sum(observed.counted for observed in self.processes)

    @property
    def stalls(self) -> int:
        """Stalls so far, those without details too."""
        return sum(observed.stalls for observed in self.processes) + self._suppressed

    @property
    def worst_ns(self) -> int:
        """The longest stall so far, an unfinished one too."""
        return max((observed.worst_ns for observed in self.processes), default=0)

    @property
    def counted(self) -> str:
        """Iterations and stalls so far, in words."""
        iterations, stalls = self.iterations, self.stalls
        return f"{iterations:,} iteration{'s' * (iterations != 1)}, {stalls:,} stall{'s' * (stalls != 1)}"

    @property
    def foreign_loops(self) -> str:
        """Names of the loops that only the pulse can see, for a closing sentence; empty without any."""
        names = sorted({name for observed in self.processes for name in observed.foreign})
        return f" ({', '.join(names)} needs the pulse)" if names else ""

    def take(self, descriptor: int, greeting: dict[str, Any]) -> None:
        """Observe the process of this greeting by the shared memory behind the descriptor, which is closed.

        Raises NotObservable for a memory that is not ours.
        """
        try:
            self._observe(MemoryReader.of(descriptor), greeting, self._clock())
        except (OSError, *MALFORMED) as error:
            raise NotObservable(f"the agent's shared memory cannot be read: {error}") from None

    def look_on(self, reader: MemoryReader, greeting: dict[str, Any]) -> None:
        """Read along where another stallscope collects (``collect.joined``)."""
        self._observe(reader, greeting, self._clock())

    def running(self) -> Iterator[Stall]:
        """The iteration in progress in each loop of every process, as an unfinished stall however young it is."""
        now = self._clock()
        for observed in self._observed:
            yield from observed.running(now)

    def drain(self) -> None:
        """Greet newcomers, take what is new, say goodbye to the dead."""
        if self.stopped:
            return
        try:
            self._drain(self._clock())
        except RecordingStopped as error:
            self.stopped = str(error)

    def dismiss(self) -> bool:
        """Ask every agent to leave; whether all have left, or their processes are gone."""
        for observed in self._observed:
            observed.dismiss()
        return all(observed.is_over or not _lives(observed.pid) for observed in self._observed)

    def finish(self) -> None:
        """Take the rest of every process and complete the recording."""
        now = self._clock()
        try:
            if not self.stopped:
                self._take_the_rest(now)
            self._writer.close(now)
        except RecordingStopped as error:
            self.stopped = str(error)
            self._writer.close(now)

    def _take_the_rest(self, now: int) -> None:
        self._greet(now)
        for observed in list(self._observed):
            self._bid_farewell(observed, now, "" if _lives(observed.pid) else "exited")
        self._writer.suppressed(self._suppressed)

    def _drain(self, now: int) -> None:
        self._greet(now)
        for observed in self._observed:
            observed.drain(now)
        if now - self._slow_at_ns < _SLOW_NS:
            return
        self._slow_at_ns = now
        for observed in list(self._observed):
            observed.drain_slowly(now)
            if not _lives(observed.pid):
                self._bid_farewell(observed, now, "exited")
        self._look_for_foreign_loops()
        self._writer.suppressed(self._suppressed + sum(observed.suppressed for observed in self._observed))
        self._writer.commit(now)

    def _look_for_foreign_loops(self) -> None:
        """In processes none of whose loops was seen, and in children forked by them that never came aboard."""
        seen = {observed.pid for observed in self._observed if observed.counted}
        for observed in self._observed:
            for pid in {observed.pid, *_children_of(observed.pid)} - seen:
                observed.look_for_foreign_loops(pid)

    def _bid_farewell(self, observed: Observed, now: int, ending: str) -> None:
        self._suppressed += observed.suppressed
        observed.finish(now, ending)
        self._observed.remove(observed)
        self._over.append(observed)

    def _greet(self, now: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self._welcome(connection, now)

    def _welcome(self, connection: socket.socket, now: int) -> None:
        connection.settimeout(_GREETING_S)
        try:
            text, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
            reader = MemoryReader.of(descriptors.pop())  # first: the descriptor is then its to close
            self._observe(reader, json.loads(text), now)
        except (OSError, RecursionError, NotObservable, *MALFORMED) as error:
            self._writer.note(f"a process could not be observed: {error}")

    def _observe(self, reader: MemoryReader, greeting: dict[str, Any], now: int) -> None:
        for same in [observed for observed in self._observed if observed.pid == greeting["pid"]]:
            self._bid_farewell(same, now, "replaced")
        self._observed.append(Observed(reader, self._writer, greeting, expects_pulse=self.pulse is not None))


def _children_of(pid: int) -> list[int]:
    """Its first children: a program with many is no reason to read the maps of all, every second."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, children.read_text().split())
    return found[:_CHILDREN_ASKED]


def _lives(pid: int) -> bool:
    """Whether the process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return os.path.exists(f"/proc/{pid}")
