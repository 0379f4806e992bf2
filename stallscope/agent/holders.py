"""Who held the GIL while a loop's thread waited for it: best effort, from the CPU time of the other threads."""

from __future__ import annotations

import sys
from _thread import get_ident
from time import monotonic_ns

from .stacks import walk
from .thread_facts import cpu_ns_of

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    from .stacks import Stack

_REMEMBERED_NS = 2_000_000_000


class Holders:
    """The latest looks at the other threads: of those that wanted to run, the one that ran most."""

    def __init__(self) -> None:
        self._cpu: Dict[int, int] = {}
        self._seen: List[Tuple[int, Stack]] = []  # (when, stack of the thread that ran most since the look before)

    def look(self, waiting: List[int]) -> None:
        """Threads ``waiting`` for the GIL are none of those that held it."""
        if not waiting:
            return
        now = monotonic_ns()
        cpu = _cpu_times([get_ident(), *waiting])
        grown = {ident: spent - self._cpu.get(ident, 0) for ident, spent in cpu.items()}
        self._cpu = cpu
        self._seen = [(when, stack) for when, stack in self._seen if now - when < _REMEMBERED_NS]
        if grown:
            most = max(grown, key=lambda ident: grown[ident])
            self._seen.append((now, walk(sys._current_frames().get(most))))

    def between(self, begun: int, ended: int) -> str:
        """Where the likely holder was, for the detail of a wait; empty when nobody looked."""
        stacks = [stack for when, stack in self._seen if begun <= when <= ended + _REMEMBERED_NS // 40 and stack]
        if not stacks:
            return ""
        code, line = stacks[-1][0]
        name = getattr(code, "co_qualname", code.co_name)
        return f"probably held by {name} ({code.co_filename[-256:]}:{line})"


def _cpu_times(but: List[int]) -> Dict[int, int]:
    """CPU time by thread identity, of the threads that ``threading`` knows: it alone has both names of a thread."""
    threads: Dict[Any, Any] = getattr(sys.modules.get("threading"), "_active", {})
    found = {}
    for ident, thread in list(threads.items()):
        tid = getattr(thread, "_native_id", None)  # gevent puts greenlets there
        spent = cpu_ns_of(tid) if type(tid) is int and ident not in but else None
        if spent is not None:
            found[ident] = spent
    return found
