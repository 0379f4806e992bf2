"""Garbage collections, timed exactly: ``gc.callbacks`` run in the very frame that set one off."""

from __future__ import annotations

import gc
import sys
from _collections import deque  # type: ignore[import-not-found]
from _thread import get_ident
from time import monotonic_ns

from .stacks import walk

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Deque, Dict

    from .stacks import Stack


class Pause:
    """One collection worth keeping."""

    __slots__ = ("duration_ns", "generation", "ident", "stack", "start_ns")

    def __init__(self, ident: int, start_ns: int, duration_ns: int, generation: int, stack: Stack) -> None:
        self.ident, self.start_ns, self.duration_ns = ident, start_ns, duration_ns
        self.generation, self.stack = generation, stack


class Pauses:
    """The latest collections of at least ``floor_ns``; bounded."""

    def __init__(self, agent: Any, floor_ns: int) -> None:
        self._agent = agent
        self._floor_ns = floor_ns
        self._begun = 0
        self.kept: Deque[Pause] = deque(maxlen=64)

    def install(self) -> None:
        """Begin to watch."""
        if self._collected not in gc.callbacks:
            gc.callbacks.append(self._collected)

    def uninstall(self) -> None:
        """Stop watching; other callbacks stay as they are."""
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def within(self, ident: int, start_ns: int, end_ns: int) -> "list[Pause]":
        """Those of thread ``ident`` that began in [start, end)."""
        return [pause for pause in list(self.kept) if pause.ident == ident and start_ns <= pause.start_ns < end_ns]

    def _collected(self, phase: str, info: Dict[str, int]) -> None:
        try:
            if phase == "start":
                self._begun = monotonic_ns()
                return
            begun, self._begun = self._begun, 0
            spent = monotonic_ns() - begun
            if begun and spent >= self._floor_ns and self._agent.alive[0]:
                self.kept.append(Pause(get_ident(), begun, spent, info["generation"], walk(sys._getframe(1))))
        except Exception as error:
            self._agent.failed(error)
