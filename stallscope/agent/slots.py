"""The loop slots of the shared memory: which loop has which."""

from __future__ import annotations

import sys
from os import getpid

from . import layout, text

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

    from .memory import Memory


class LoopSlots:
    """Gives the first ``count`` slots out to loops."""

    def __init__(self, memory: Memory, count: int) -> None:
        self._memory = memory
        self._count = count
        self._given: Dict[Tuple[str, str, int, Optional[str]], int] = {}  # whose -> byte offset of its slot

    def take(self, kind: str, loop_name: str, ident: int, tid: int) -> Optional[int]:
        """The slot that this thread's loops of this kind have had, or a fresh one, or one whose loop is long over.

        None: all are taken.
        """
        key = (kind, loop_name, tid, _thread_name(ident, tid))
        loop_at = self._given.get(key)
        cells = self._memory.cells
        if loop_at is not None and cells[loop_at // layout.CELL + layout.L_STATE] != layout.LOOP_OPEN:
            cells[loop_at // layout.CELL + layout.L_DRAINED] = 0  # there will be more
            return loop_at
        for slot in range(self._count):
            loop_at = layout.LOOPS_AT + slot * layout.LOOP_BYTES
            if self._is_free(slot, loop_at // layout.CELL):
                self._given = {known: at for known, at in self._given.items() if at != loop_at}
                self._given[key] = loop_at
                self._prepare(loop_at, tid)
                name(self._memory, loop_at, identity_of(kind, loop_name, ident, tid))
                cells[layout.H_LOOPS] = max(cells[layout.H_LOOPS], slot + 1)
                return loop_at
        return None

    def _is_free(self, slot: int, cell: int) -> bool:
        cells = self._memory.cells
        if cells[cell + layout.L_STATE] == layout.LOOP_FREE:
            return True
        is_over = cells[cell + layout.L_STATE] == layout.LOOP_CLOSED
        return slot >= self._count // 2 and is_over and cells[cell + layout.L_DRAINED] == cells[cell + layout.L_EPOCH]

    def _prepare(self, loop_at: int, tid: int) -> None:
        cells, cell = self._memory.cells, loop_at // layout.CELL
        histogram = loop_at + layout.LOOP_HISTOGRAM_AT
        self._memory.bytes[histogram : histogram + layout.BUCKETS * layout.CELL] = bytes(layout.BUCKETS * layout.CELL)
        cells[cell + layout.L_ZERO_WAITS] = cells[cell + layout.L_OPENED] = 0
        cells[cell + layout.L_TID] = tid
        cells[cell + layout.L_EPOCH] += 1


def identity_of(kind: str, loop_name: str, ident: int, tid: int) -> str:
    """The JSON by which a slot's loop is known."""
    return text.encode({"kind": kind, "name": loop_name, "thread": _thread_name(ident, tid)})


def name(memory: Memory, loop_at: int, identity: str) -> None:
    """Write a slot's identity."""
    memory.put_text(loop_at + layout.LOOP_TEXT_AT, layout.LOOP_TEXT_BYTES, identity)


def _thread_name(ident: int, tid: int) -> str:
    """Without ``current_thread()``, which would register a dummy for a foreign thread."""
    threading: Any = sys.modules.get("threading")
    thread = threading._active.get(ident) if threading is not None else None
    known = getattr(thread, "_name", None)
    if isinstance(known, str):
        return known[:128]
    return "MainThread" if tid == getpid() else f"thread {tid}"
