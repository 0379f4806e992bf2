"""The log2 histogram as funclatency draws it, with the modes and the valley marked at their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import dropwhile, groupby
from typing import Protocol

from stallscope.analysis.findings import Log2Row
from stallscope.analysis.modes import Modality, Mode

WIDTH = 40
"""Columns of the longest bar; fewer where long numbers leave less of a line of 80."""
_LINE = 80
_MARK = " ] mode 9"


ROWS = 7
"""Rows that a histogram is folded to, where that is possible."""
LONG_GAP = 2
"""More empty rows than these are folded as well."""


class Histogram(Protocol):
    """What is drawn of a loop."""

    @property
    def log2(self) -> tuple[Log2Row, ...]: ...

    @property
    def modality(self) -> Modality: ...


def draw(loop: Histogram, *, whole: bool = True) -> Iterator[str]:
    """The lines of a loop's histogram, at most 80 columns wide; none without iterations.  Where it need not be `whole`
    the fastest rows are folded into one, and long gaps."""
    rows = list(dropwhile(lambda row: not row.count, loop.log2))
    if not rows:
        return
    if not whole:
        rows = _folded(rows, loop)
    most = max(row.count for row in rows)
    digits, places = max(6, len(str(rows[-1].hi_us))), max(6, len(str(most)))
    width = min(WIDTH, _LINE - (2 * digits + places + len(" ->  : ||")) - len(_MARK))
    yield f"{'usecs':>{2 * digits + 4}} : count"
    for empty, several in groupby(
        zip(rows, _marks(loop, rows), strict=True), key=lambda one: not (one[0].count or one[1])
    ):
        marked = list(several)
        if empty and len(marked) > LONG_GAP and not whole:
            yield f"{'...':>{digits}}"
            continue
        for row, mark in marked:
            bar = _bar(row.count, most, width)
            yield f"{row.lo_us:>{digits}} -> {row.hi_us:<{digits}} : {row.count:<{places}}|{bar}|{mark}"


def _folded(rows: Sequence[Log2Row], loop: Histogram) -> list[Log2Row]:
    """The fastest rows as one, as many as `ROWS` asks for, but none from the first valley or the fullest row on."""
    valleys = [_row(rows, valley.threshold_ns) for valley in loop.modality.valleys]
    fullest = max(range(len(rows)), key=lambda at: rows[at].count)
    many = min([len(rows) - ROWS + 1, *(valleys[:1] or [fullest])])
    if many < 2:
        return list(rows)
    return [Log2Row(rows[0].lo_us, rows[many - 1].hi_us, sum(row.count for row in rows[:many])), *rows[many:]]


def _bar(number: int, most: int, width: int) -> str:
    """A bar scaled to the fullest row; one star at least, or a mode of one in a thousand would not be seen."""
    stars = max(1, number * width // most) if number else 0
    return f"{'*' * stars:<{width}}"


def _marks(loop: Histogram, rows: Sequence[Log2Row]) -> list[str]:
    """What to write beside each row: a bracket along each mode, named at its peak, and the valleys."""
    modes = loop.modality.modes
    if len(modes) < 2:
        return [""] * len(rows)
    marks = [" ]" if row.count and any(_holds(mode, row) for mode in modes) else "" for row in rows]
    for valley in loop.modality.valleys:
        marks[_row(rows, valley.threshold_ns)] = " - valley"
    for number, mode in enumerate(modes, 1):
        marks[_row(rows, mode.peak_ns)] = f" ] mode {number}"
    return marks


def _row(rows: Sequence[Log2Row], ns: float) -> int:
    """Index of the row that a time falls into."""
    return next((index for index, row in enumerate(rows) if ns < 1000 * (row.hi_us + 1)), len(rows) - 1)


def _holds(mode: Mode, row: Log2Row) -> bool:
    return mode.lo_ns < 1000 * (row.hi_us + 1) and mode.hi_ns > 1000 * row.lo_us
