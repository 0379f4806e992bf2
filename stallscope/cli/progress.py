"""What ``attach`` says while it watches: one line, at intervals."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stallscope.cli.output import say

if TYPE_CHECKING:
    from stallscope.collect.collector import Collector

_EVERY_S = 1.0
_NO_LOOP_S = 5.0


class Progress:
    """A view of a collector: its ``tell`` is called with the elapsed seconds, ten times a second.

    A line on stderr: rewritten once a second on a terminal, printed every ten seconds elsewhere. Use as a context
    manager: at the end the line that was rewritten is left.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._terminal = sys.stderr.isatty()
        self._every_s = _EVERY_S if self._terminal else 10 * _EVERY_S
        self._next_s = self._every_s
        self._no_loop_said = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._terminal:
            print(file=sys.stderr)

    def tell(self, elapsed_s: float) -> None:
        """Print when it is time."""
        seen = self._collector
        if elapsed_s >= _NO_LOOP_S and not seen.iterations and not seen.worst_ns and not self._no_loop_said:
            self._no_loop_said = True
            say(f"no iteration of an asyncio loop so far{seen.foreign_loops}; watching on")
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + self._every_s
            self._print(f"stallscope: {elapsed_s:.0f} s, {seen.counted}, worst {seen.worst_ns / 1e6:.1f} ms")

    def _print(self, line: str) -> None:
        shown, end = (f"\r{line}\x1b[K", "") if self._terminal else (line, "\n")
        print(shown, end=end, file=sys.stderr, flush=True)
