"""The last megabytes of a text, by position: where the lines of a stall are looked up again.

A reader that touched every line once could not be fast enough.  So it skips what cannot begin or end an iteration, and
comes back for the lines of an iteration only when that turned out to be a stall.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable

KEPT_BYTES = 8 << 20
"""Enough for a stall of some seconds in the densest trace; the beginning of a longer one is not itemised."""
STACK_BYTES = 32 << 10
"""No tracer prints more of one stack."""
FEW = 3
"""So many threads are counted one by one."""


class Window:
    """Blocks of whole lines, the oldest forgotten.  A position counts the bytes from the beginning of the text."""

    def __init__(self, ages: Callable[[int, bytes], None] | None = None) -> None:
        """`ages` is given each block, and its position, before it is forgotten."""
        self._ages = ages
        self.end = self.lines = self.added = 0
        """Bytes and lines so far, and lines of the last block."""
        self._blocks: deque[tuple[int, bytes]] = deque()

    def add(self, block: bytes) -> int:
        """Take in the next block; returns the position of its first byte."""
        start = self.end
        self._blocks.append((start, block))
        self.end += len(block)
        self.added = block.count(b"\n") + (not block.endswith(b"\n"))
        self.lines += self.added
        while len(self._blocks) > 1 and self.end - self._blocks[1][0] >= KEPT_BYTES:
            oldest = self._blocks.popleft()
            if self._ages:
                self._ages(*oldest)
        return start

    def text(self, begin: int, end: int) -> tuple[int, bytes]:
        """What is kept still of the text between two positions, and where that begins."""
        pieces = [block[max(begin - start, 0) : max(end - start, 0)] for start, block in self._blocks]
        return max(begin, self._blocks[0][0]) if self._blocks else begin, b"".join(pieces)


def last_line(text: bytes, frame: bytes) -> bytes:
    """The last line that does not begin like one of a call's stack, which stands behind the call."""
    lines = reversed(text[-STACK_BYTES:].splitlines())
    return next((line for line in lines if not line.startswith(frame)), b"")


def count_by(
    pattern: re.Pattern[bytes], before: bytes, after: bytes, text: bytes, lines: int, seen: Counter[bytes]
) -> Counter[bytes]:
    """How many of a text's lines each thread has, by the one group of `pattern`; `seen` are the counts so far.

    Where few threads were seen, their lines are counted first, the busiest one's before: where there are no others,
    that is three times as fast.
    """
    if len(seen) <= FEW:
        counts: Counter[bytes] = Counter()
        for token, _ in seen.most_common():
            counts[token] = text.count(before + token + after)
            if (lines := lines - counts[token]) == 0:
                return counts
    return Counter(pattern.findall(text))
