"""Numbers that recur in a trace, such as descriptors and the time that a quick call took."""

from __future__ import annotations

from collections.abc import Callable

KEPT = 1 << 16
"""Beyond so many different ones a number is read each time."""


class Recurring(dict[bytes, int]):
    """What numbers mean, by their digits, each read once: to look one up takes a third of the time of int()."""

    def __init__(self, read: Callable[[bytes], int]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, digits: bytes) -> int:
        value = self._read(digits)
        if len(self) < KEPT:
            self[digits] = value
        return value
