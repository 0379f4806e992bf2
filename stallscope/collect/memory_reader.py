"""The reading end of the shared memory: what is new since the last look (``agent.layout``)."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stallscope.agent import layout
from stallscope.errors import NotObservable

_OCTAVE = layout.SUB_BUCKETS * layout.CELL  # bytes of a histogram


class LoopSlot(NamedTuple):
    """One loop slot as it is now; ``fresh`` are the counts since the last look."""

    slot: int
    epoch: int
    is_open: bool
    tid: int
    kind: str
    name: str
    opened_ns: int
    zero_waits: int
    fresh: Mapping[int, int]


class MemoryReader:
    """One observed process's memory; the mapping outlives the process, however it dies."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._map = mapping
        self._cells = memoryview(self._map).cast("Q")
        if self._cells[layout.H_MAGIC] != layout.MAGIC or self._cells[layout.H_VERSION] != layout.VERSION:
            raise NotObservable("the shared memory is of another version of stallscope")
        self._gains = Gains()

    @classmethod
    def of(cls, descriptor: int) -> MemoryReader:
        """A reader of the file behind the descriptor, which is closed."""
        try:
            if os.fstat(descriptor).st_size < layout.SIZE:
                raise NotObservable("the agent's shared memory is too small: another version of stallscope is aboard")
            return cls(mmap.mmap(descriptor, layout.SIZE))
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Unmap."""
        self._cells.release()
        self._map.close()

    def beat(self, now_ns: int) -> None:
        """Tell the agent that somebody is listening."""
        self._cells[layout.H_HEARTBEAT] = now_ns

    def ask_to_leave(self) -> None:
        """Ask the agent to unhook and go; ``is_over`` tells when it has."""
        self._cells[layout.H_STOP] = 1

    @property
    def started_ns(self) -> int:
        """When the agent came aboard."""
        return self._cells[layout.H_STARTED]

    @property
    def threshold_ns(self) -> int:
        """From which duration on an iteration is a stall."""
        return self._cells[layout.H_THRESHOLD]

    @property
    def suppressed(self) -> int:
        """Stalls without details: over the rate limit, or the ring was full."""
        return self._cells[layout.H_SUPPRESSED] + self._cells[layout.H_DROPPED]

    @property
    def unseen_loops(self) -> int:
        """Loops that found no slot."""
        return self._cells[layout.H_UNSEEN_LOOPS]

    @property
    def is_over(self) -> bool:
        """Whether the agent has left; nothing new will come."""
        return self._cells[layout.H_STATE] != layout.STATE_RUNNING

    @property
    def error(self) -> str:
        """Why the agent disabled itself; empty unless it did."""
        return self._text(layout.ERROR_AT) if self._cells[layout.H_STATE] == layout.STATE_DISABLED else ""

    @property
    def has_pulse(self) -> bool:
        """Whether the pulse is, or was, at work."""
        return bool(self._cells[layout.H_PULSE])

    def loops(self, *, nameless: bool = False) -> Iterator[LoopSlot]:
        """Every loop slot in use, and the counts it gained.

        A loop that the pulse found by itself gets its name from the agent a moment later; until
        then it is left out, unless there is nobody any more who could name it.
        """
        for slot in range(min(self._cells[layout.H_LOOPS], layout.LOOPS)):
            at = layout.LOOPS_AT + slot * layout.LOOP_BYTES
            cells = self._cells[at // layout.CELL :]
            is_open = cells[layout.L_STATE] == layout.LOOP_OPEN  # read first: what follows is then complete
            identity = self._json(self._text(at + layout.LOOP_TEXT_AT))
            if cells[layout.L_EPOCH] == 0 or not (identity or nameless):
                continue
            yield LoopSlot(
                slot=slot,
                epoch=cells[layout.L_EPOCH],
                is_open=is_open,
                tid=cells[layout.L_TID],
                kind=str(identity.get("kind", "epoll")),
                name=f"{identity.get('thread', '')} {identity.get('name', '')}".strip(),
                opened_ns=cells[layout.L_OPENED],
                zero_waits=cells[layout.L_ZERO_WAITS],
                fresh=self._fresh(at + layout.LOOP_HISTOGRAM_AT, cells[layout.L_EPOCH]),
            )

    def drained(self, slot: LoopSlot) -> None:
        """Tell the agent that a closed loop was read to its end: its slot may be given away."""
        at = (layout.LOOPS_AT + slot.slot * layout.LOOP_BYTES) // layout.CELL
        self._cells[at + layout.L_DRAINED] = slot.epoch

    def handler(self, slot: int) -> Mapping[str, Any]:
        """Identity of a handler slot: name, file, line."""
        return self._json(self._text(layout.HANDLERS_AT + slot * layout.HANDLER_BYTES + layout.HANDLER_TEXT_AT))

    def handler_counts(self) -> Iterator[tuple[int, Mapping[int, int]]]:
        """(slot, counts gained) of every handler that ran since the last look."""
        for slot in range(min(self._cells[layout.H_HANDLERS], layout.HANDLERS)):
            fresh = self._fresh(layout.HANDLERS_AT + slot * layout.HANDLER_BYTES + layout.HANDLER_HISTOGRAM_AT, 0)
            if fresh:
                yield slot, fresh

    def records(self) -> Iterator[Mapping[str, Any]]:
        """Stall records not read before, oldest first; unreadable ones are passed over."""
        tail, head = self._cells[layout.H_RING_TAIL], self._cells[layout.H_RING_HEAD]
        for number in range(max(tail, head - layout.RECORDS), head):
            yield from self._record(number)
            self._cells[layout.H_RING_TAIL] = number + 1

    def _record(self, number: int) -> Iterator[Mapping[str, Any]]:
        """The record of that number, unless it cannot be read."""
        at = layout.RING_AT + number % layout.RECORDS * layout.RECORD_BYTES
        length, sequence = layout.RECORD_HEAD.unpack_from(self._map, at)
        at += layout.RECORD_HEAD.size
        if sequence == number & 0xFFFFFFFF and length <= layout.RECORD_TEXT_MAX:
            record = self._json(self._map[at : at + length].decode("utf-8", "replace"))
            if record:
                yield record

    def in_progress(self) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """(slot, start, record) of the iteration in progress in each loop; the record is empty
        when the watchdog has published nothing (or something older)."""
        for slot in range(min(self._cells[layout.H_LOOPS], layout.LOOPS)):
            at = layout.LOOPS_AT + slot * layout.LOOP_BYTES
            started = self._cells[at // layout.CELL + layout.L_STARTED]
            if started and self._cells[at // layout.CELL + layout.L_STATE] == layout.LOOP_OPEN:
                record = self._progress(at)
                yield slot, started, record if record.get("start") == started else {}

    def _progress(self, at: int) -> Mapping[str, Any]:
        cell = at // layout.CELL
        before = self._cells[cell + layout.L_PROGRESS_SEQ]
        length = min(self._cells[cell + layout.L_PROGRESS_LEN], layout.PROGRESS_BYTES)
        data = self._map[at + layout.PROGRESS_AT : at + layout.PROGRESS_AT + length]
        if before % 2 or before != self._cells[cell + layout.L_PROGRESS_SEQ]:
            return {}
        return self._json(data.decode("utf-8", "replace")) if length else {}

    def _fresh(self, at: int, epoch: int) -> Mapping[int, int]:
        """Counts gained by the histogram at byte ``at``."""
        return self._gains.of(at, epoch, self._map[at : at + layout.BUCKETS * layout.CELL])

    def _text(self, at: int) -> str:
        end = self._map.find(b"\0", at, at + layout.HANDLER_TEXT_BYTES)
        return self._map[at:end].decode("utf-8", "replace") if end > at else ""

    @staticmethod
    def _json(text: str) -> Mapping[str, Any]:
        try:
            value = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class Gains:
    """What histograms gained since they were last looked at; most looks find the bytes as they were."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, bytes]] = {}  # by place: whose it was, and what it held

    def of(self, at: int, epoch: int, now: bytes, first: int = 0) -> Mapping[int, int]:
        """By bucket, of the one at that place; ``epoch`` says whose it is, and ``now`` begins with bucket ``first``."""
        whose, before = self._seen.get(at, (epoch, b""))
        if before == now and whose == epoch:
            return {}
        self._seen[at] = epoch, now
        return _grown(now, before if whose == epoch and before else bytes(len(now)), first)


def _grown(now: bytes, before: bytes, first: int) -> Mapping[int, int]:
    """Octave by octave: a session of tests looks thousands of times, and finds all of them but one or two unchanged."""
    gained: dict[int, int] = {}
    for at in range(0, len(now), _OCTAVE):
        new, old = now[at : at + _OCTAVE], before[at : at + _OCTAVE]
        if new != old:
            pairs = zip(memoryview(new).cast("Q"), memoryview(old).cast("Q"), strict=True)
            numbered = enumerate(pairs, first + at // layout.CELL)
            gained.update((bucket, count - was) for bucket, (count, was) in numbered if count > was)
    return gained
