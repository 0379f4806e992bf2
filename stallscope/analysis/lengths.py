"""How long a loop's iterations were: its histogram, with the lengths that are known exactly put in.

A bucket says its iterations' lengths to 3 %; the stalls that were kept say theirs to the nanosecond.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from hdrh.histogram import HdrHistogram

from stallscope.agent.layout import MAX_NS, SUB_BUCKETS, bounds_ns, bucket_of
from stallscope.analysis.modes import Bins
from stallscope.recording.histogram import middle_ns
from stallscope.recording.nouns import CoarseHistogram, Counts, Loop, Stall

DIGITS = 3  # significant digits of a percentile: finer than the buckets, as fine as exact lengths deserve
QUANTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Lengths:
    """The iterations of one loop: as a histogram, and as `known`, pairs of (ns, number) from the shortest on: exact
    lengths, and for the rest of a bucket its middle.

    An iteration still in progress when the recording ended is among them, though the loop itself had not counted it.
    """

    bins: Bins
    known: tuple[tuple[int, int], ...]

    @property
    def iterations(self) -> int:
        return sum(self.bins.counts)

    @property
    def total_ns(self) -> int:
        return sum(ns * count for ns, count in self.known)

    @property
    def longest_ns(self) -> int | None:
        return max((ns for ns, _ in self.known), default=None)

    def at_least(self, threshold_ns: int) -> tuple[int, int]:
        """How many iterations are as long as `threshold_ns` or longer, and their sum in ns."""
        long = [(ns, count) for ns, count in self.known if ns >= threshold_ns]
        return sum(count for _, count in long), sum(ns * count for ns, count in long)


def lengths(loop: Loop, stalls: Iterable[Stall]) -> Lengths:
    """The lengths of a loop's iterations, `stalls` being those of this loop whose details were kept."""
    own = sorted(stalls, key=lambda stall: stall.duration_ns)
    bins = _fine(loop.counts, own) if loop.coarse is None else _coarse(loop.coarse)
    exact: dict[int, list[int]] = {}
    for stall in own:
        exact.setdefault(bisect_right(bins.edges_ns, stall.duration_ns) - 1, []).append(stall.duration_ns)
    known: list[tuple[int, int]] = []
    for at, count in enumerate(bins.counts):
        if count:
            durations = exact.get(at, [])[:count]
            known += [(ns, 1) for ns in durations]
            if count > len(durations):
                known.append((_middle_ns(bins, at), count - len(durations)))
    return Lengths(bins, tuple(known))


def _fine(counts: Counts, stalls: Iterable[Stall]) -> Bins:
    """Our own buckets, none left out between the first and the last; what is in progress is counted."""
    filled = Counter({bucket: count for bucket, count in counts.items() if count > 0})
    filled.update(bucket_of(stall.duration_ns) for stall in stalls if not stall.finished)
    return _bins(filled)


def _bins(filled: Mapping[int, int]) -> Bins:
    if not filled:
        return Bins((), ())
    span = range(min(filled), max(filled) + 1)
    edges = (*(float(bounds_ns(bucket)[0]) for bucket in span), float(bounds_ns(span[-1])[1]))
    return Bins(edges, tuple(filled.get(bucket, 0) for bucket in span), per_octave=SUB_BUCKETS)


def changed(held: Lengths, changes: Iterable[tuple[int, int]]) -> Lengths:
    """The same iterations, those of `changes` (pairs of old and new ns) being shorter or longer."""
    pairs = list(changes)
    known: Counter[int] = Counter()
    for ns, count in held.known:
        known[ns] += count
    known.update(new for _, new in pairs)
    known.subtract(old for old, _ in pairs)
    left = tuple(sorted((ns, count) for ns, count in known.items() if count > 0))
    if held.bins.per_octave == SUB_BUCKETS:
        filled = _filled(held.bins)
        filled.update(bucket_of(new) for _, new in pairs)
        filled.subtract(bucket_of(old) for old, _ in pairs)
        return Lengths(_bins(+filled), left)
    counts = list(held.bins.counts)
    for old, new in pairs:
        counts[_bin(held.bins, old)] -= 1
        counts[_bin(held.bins, new)] += 1
    return Lengths(replace(held.bins, counts=tuple(max(0, count) for count in counts)), left)


def merged(several: Sequence[Lengths]) -> Lengths | None:
    """The iterations of several loops as one; None where one of them has coarse buckets of its own."""
    if any(held.bins.counts and held.bins.per_octave != SUB_BUCKETS for held in several):
        return None
    filled: Counter[int] = Counter()
    known: Counter[int] = Counter()
    for held in several:
        filled.update(_filled(held.bins))
        for ns, count in held.known:
            known[ns] += count
    return Lengths(_bins(filled), tuple(sorted(known.items())))


def _filled(bins: Bins) -> Counter[int]:
    """The counts of our own buckets by their number."""
    return Counter({bucket_of(int(lo)): n for lo, n in zip(bins.edges_ns, bins.counts, strict=False) if n})


def _bin(bins: Bins, ns: int) -> int:
    return min(len(bins.counts) - 1, max(0, bisect_right(bins.edges_ns, ns) - 1))


def _coarse(held: CoarseHistogram) -> Bins:
    return Bins(held.edges_ns, held.counts, held.tick_ns, held.per_octave)


def _middle_ns(bins: Bins, at: int) -> int:
    """Of our own buckets, and of one from zero on, the arithmetic middle; of an octave the geometric: most lie low."""
    low, high = bins.edges_ns[at], bins.edges_ns[at + 1]
    if bins.per_octave == SUB_BUCKETS:
        return middle_ns(bucket_of(int(low)))
    return int(sqrt(low * high) if low else high / 2)


def moments(held: Lengths) -> tuple[list[float], list[float]]:
    """The sum (ns) and the sum of squares (ns²) of the lengths in each bucket."""
    size = len(held.bins.counts)
    sums, squares = [0.0] * size, [0.0] * size
    for ns, count in held.known:
        at = bisect_right(held.bins.edges_ns, ns) - 1
        sums[at] += ns * count
        squares[at] += float(ns) * ns * count
    return sums, squares


def percentile_histogram(known: Iterable[tuple[int, int]]) -> HdrHistogram:
    """An HdrHistogram of (ns, number) pairs, from 1 ns to the longest that a recording can hold."""
    histogram = HdrHistogram(1, MAX_NS, DIGITS)
    for ns, count in known:
        histogram.record_value(min(max(ns, 1), MAX_NS), count)
    return histogram


def quantiles_ns(known: Iterable[tuple[int, int]], quantiles: Sequence[float] = QUANTILES) -> tuple[int, ...]:
    """The lengths in ns that so many percent of the iterations do not exceed; empty without iterations."""
    pairs = tuple(known)
    if not pairs:
        return ()
    longest = max(ns for ns, _ in pairs)
    found = percentile_histogram(pairs).get_percentile_to_value_dict(list(quantiles))
    return tuple(min(int(found[q]), longest) for q in quantiles)
