"""Two histograms side by side, rows of whole powers of two of microseconds, each scaled to its own iterations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from stallscope.analysis.findings import Log2Row, Totals

BAR = 17
"""Columns of the longest bar of either side: two of them, with numbers, fit in 80."""
_NO_ROW = Log2Row(0, 0, 0)


def draw(left: Totals, right: Totals, names: tuple[str, str]) -> Iterator[str]:
    """The lines of both histograms, from the first row that either has; none without iterations."""
    rows = list(zip_longest(left.log2, right.log2, fillvalue=_NO_ROW))
    first = next((at for at, (a, b) in enumerate(rows) if a.count or b.count), len(rows))
    if first == len(rows):
        return
    most = [max((row.count for row in side.log2), default=0) for side in (left, right)]
    edges = [max(pair, key=lambda row: row.hi_us) for pair in rows[first:]]
    digits = max(6, len(str(edges[-1].hi_us)))
    yield f"{'usecs':>{2 * digits + 4}}   {names[0]:<{BAR + 9}} {names[1]}"
    for edge, pair in zip(edges, rows[first:], strict=True):
        sides = " ".join(_side(row, top) for row, top in zip(pair, most, strict=True))
        yield f"{edge.lo_us:>{digits}} -> {edge.hi_us:<{digits}} : {sides}"


def _side(row: Log2Row, most: int) -> str:
    stars = max(1, row.count * BAR // most) if row.count else 0
    return f"{row.count:<6} |{'*' * stars:<{BAR}}|"


def figures(pairs: Sequence[tuple[str, str, str]], names: tuple[str, str]) -> Iterator[str]:
    """A table of a word and two values."""
    yield f"  {'':<30}{names[0]:>14}{names[1]:>14}"
    for name, left, right in pairs:
        yield f"  {name:<30}{left:>14}{right:>14}"
