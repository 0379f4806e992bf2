"""Shared memories written by hand, as an agent (or something else) might leave them."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping

from stallscope.agent import layout
from stallscope.collect.memory_reader import MemoryReader

STARTED_NS = 5_000_000_000
THRESHOLD_NS = 10_000_000


class HandMadeMemory:
    """The writing end: cells, texts and records at the places that ``layout`` names."""

    def __init__(self, magic: int = layout.MAGIC, version: int = layout.VERSION, size: int = layout.SIZE) -> None:
        self.fd = os.memfd_create("hand-made")
        os.ftruncate(self.fd, size)
        self.bytes = mmap.mmap(self.fd, size)
        self.cells = memoryview(self.bytes).cast("Q")
        self.cells[layout.H_MAGIC], self.cells[layout.H_VERSION] = magic, version
        self.cells[layout.H_STATE], self.cells[layout.H_THRESHOLD] = layout.STATE_RUNNING, THRESHOLD_NS
        self.cells[layout.H_STARTED] = STARTED_NS

    def reader(self) -> MemoryReader:
        """A reader of it; takes a descriptor of its own."""
        return MemoryReader.of(os.dup(self.fd))

    def text(self, at: int, text: bytes) -> None:
        """Bytes at a byte offset."""
        self.bytes[at : at + len(text)] = text

    def loop(self, slot: int = 0, counts: Mapping[int, int] | None = None, identity: bytes | None = None) -> int:
        """An open loop slot; returns its first cell."""
        at = layout.LOOPS_AT + slot * layout.LOOP_BYTES
        cell = at // layout.CELL
        self.cells[layout.H_LOOPS] = max(self.cells[layout.H_LOOPS], slot + 1)
        self.cells[cell + layout.L_STATE] = layout.LOOP_OPEN
        self.cells[cell + layout.L_EPOCH], self.cells[cell + layout.L_TID] = 1, 77
        self.cells[cell + layout.L_OPENED] = STARTED_NS
        self.text(at + layout.LOOP_TEXT_AT, identity or b'{"kind": "asyncio", "name": "Loop", "thread": "Main"}')
        for bucket, count in (counts or {}).items():
            self.cells[(at + layout.LOOP_HISTOGRAM_AT) // layout.CELL + bucket] = count
        return cell

    def record(self, text: bytes, length: int | None = None, sequence: int | None = None) -> None:
        """One more record in the ring; its length and number may lie."""
        number = self.cells[layout.H_RING_HEAD]
        at = layout.RING_AT + number % layout.RECORDS * layout.RECORD_BYTES
        said = len(text) if length is None else length
        layout.RECORD_HEAD.pack_into(self.bytes, at, said, number if sequence is None else sequence)
        self.text(at + layout.RECORD_HEAD.size, text)
        self.cells[layout.H_RING_HEAD] = number + 1


def stall_record(**changes: object) -> bytes:
    """A stall record of the right form, but for the changes."""
    record: dict[str, object] = {
        "loop": 0,
        "start": STARTED_NS,
        "end": STARTED_NS + 50_000_000,
        "task": "Task-1",
        "handler": ["main", "app.py", 3],
        "handlers": [[0, 1, 50_000_000]],
        "frames": [["app.py", 4, "main"]],
        "spans": [[STARTED_NS, STARTED_NS + 50_000_000, 9, [0], ["read", "path", "/x", "fd 3"], "S", 1, 2, 3, 4]],
        "gc": [],
    }
    return json.dumps({**record, **changes}).encode()
