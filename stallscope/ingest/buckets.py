"""Foreign buckets as a coarse histogram."""

from __future__ import annotations

from stallscope.recording.nouns import CoarseHistogram

Cells = dict[tuple[int, int], int]
"""Counts by bucket, [lo, hi) in ns."""


def coarse(cells: Cells, per_octave: int = 1) -> CoarseHistogram:
    """The buckets in order, with the gaps between them filled by empty ones."""
    edges: list[int] = []
    counts: list[int] = []
    for (low, high), count in sorted(_apart(cells).items()):
        if edges and low > edges[-1]:
            edges.append(low)
            counts.append(0)
        elif not edges:
            edges.append(low)
        edges.append(high)
        counts.append(count)
    return CoarseHistogram(tuple(edges), tuple(counts), 0, per_octave)


def _apart(cells: Cells) -> Cells:
    """Without the buckets that overlap the one before (a torn file)."""
    kept: Cells = {}
    end = 0
    for (low, high), count in sorted(cells.items()):
        if end <= low < high:
            kept[low, high] = count
            end = high
    return kept
