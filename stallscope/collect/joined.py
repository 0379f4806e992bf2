"""Looks on where another stallscope collects: reads the same shared memory, and writes nothing into it.

The memory is copied out of the process, what is new of it, as a debugger would read it: it has no descriptor left that
could be opened. So the ring, the counters and the heartbeat stay the first one's own; records that it has taken stand
in the ring until they are overwritten, and are read there.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stallscope.agent import layout
from stallscope.collect.memory_reader import MemoryReader
from stallscope.errors import NotObservable

_SILENCE_NS = 3_000_000_000
"""A heartbeat older than this is that of a collector that is no more, or stopped."""


class JoinedReader(MemoryReader):
    """A reader of a copy, which it renews at each ``beat``; nothing that it is told reaches the process."""

    def __init__(self, pid: int, address: int) -> None:
        self._address = address
        self._process = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._gone = False
        self._read_to = 0
        copy = mmap.mmap(-1, layout.SIZE)
        try:
            self._copy(copy, 0, layout.PAGE)
            super().__init__(mapping=copy)
        except BaseException:
            os.close(self._process)
            raise
        self._read_to = max(0, self._cells[layout.H_RING_HEAD] - layout.RECORDS)

    @property
    def owner_pid(self) -> int:
        """The process number of the stallscope that collects; 0 where the program cannot see it."""
        return self._cells[layout.H_OWNER]

    @property
    def inner_pid(self) -> int:
        """The number of the process in its own namespace: a forked child has its parent's memory."""
        return self._cells[layout.H_PID]

    @property
    def is_collected(self) -> bool:
        """Whether somebody is collecting, be it one that is stopped for the moment (Ctrl-Z)."""
        is_heard = time.monotonic_ns() - self._cells[layout.H_HEARTBEAT] < _SILENCE_NS
        return not self.is_over and (is_heard or (self.owner_pid > 0 and os.path.exists(f"/proc/{self.owner_pid}")))

    @property
    def is_over(self) -> bool:
        return self._gone or super().is_over

    def close(self) -> None:
        super().close()
        os.close(self._process)

    def beat(self, now_ns: int) -> None:
        self._copy(self._map, 0, layout.PAGE)
        loops = min(self._cells[layout.H_LOOPS], layout.LOOPS)
        self._copy(self._map, layout.LOOPS_AT, loops * layout.LOOP_BYTES)

    def ask_to_leave(self) -> None:
        """The agent stays: it is the first one's."""

    def handler(self, slot: int) -> Mapping[str, Any]:
        self._copy(self._map, layout.HANDLERS_AT + slot * layout.HANDLER_BYTES, layout.HANDLER_HISTOGRAM_AT)
        return super().handler(slot)

    def handler_counts(self) -> Iterator[tuple[int, Mapping[int, int]]]:
        handlers = min(self._cells[layout.H_HANDLERS], layout.HANDLERS)
        self._copy(self._map, layout.HANDLERS_AT, handlers * layout.HANDLER_BYTES)
        return super().handler_counts()

    def in_progress(self) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        self.beat(0)  # what was in progress a tenth of a second ago would seem to have lasted until now
        return super().in_progress()

    def records(self) -> Iterator[Mapping[str, Any]]:
        head = self._cells[layout.H_RING_HEAD]
        for number in range(max(self._read_to, head - layout.RECORDS), head):
            at = layout.RING_AT + number % layout.RECORDS * layout.RECORD_BYTES
            self._copy(self._map, at, layout.RECORD_BYTES)
            self._copy(self._map, 0, layout.PAGE)
            if self._cells[layout.H_RING_HEAD] - number < layout.RECORDS:  # else it was being overwritten
                yield from self._record(number)
        self._read_to = head

    def _copy(self, into: mmap.mmap, at: int, size: int) -> None:
        """Nothing is copied when the process is gone: what was read last stays."""
        if not size:
            return
        try:
            with memoryview(into) as whole, whole[at : at + size] as part:
                done = os.preadv(self._process, [part], self._address + at)
        except OSError:
            done = 0
        self._gone = self._gone or done < size


def joined(pid: int, inner_pid: int) -> JoinedReader | None:
    """A reader of what another stallscope collects of this process; None when nobody does.

    Raises OSError when the process may not be looked into.
    """
    for address in _memories(pid):
        try:
            reader = JoinedReader(pid, address)
        except NotObservable:
            continue
        if reader.inner_pid == inner_pid and reader.is_collected:
            return reader
        reader.close()
    return None


def _memories(pid: int) -> Iterator[int]:
    """Addresses of what may be an agent's shared memory."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _, rest = line.partition(" ")
        low, high = (int(part, 16) for part in span.split("-"))
        path = rest.partition("/")[2]
        ours = path.startswith("memfd:stallscope (") or "/stallscope-" in path  # the latter where there are no memfds
        if ours and high - low >= layout.SIZE:
            yield low
