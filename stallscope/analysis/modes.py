"""Modes: is a histogram of iterations one lump, or are there stalls in a lump of their own, and where is the line?

`find_modes` splits a histogram at its best valley (see `valley`), then each half again, until no valley is proven.
Words, as this module uses them:

- the *main mode* is the fastest that holds at least 1 % of the iterations (a handful of quick turns is no pace);
- a *stall mode* is a slower one whose median is at least 5 ms and three octaves above the main mode's;
- any other mode is a *plain mode*: listed, and said in `note`, but no reason to call a loop stalled.

`shape` is the verdict about stalls, so plain modes do not count: `unimodal` without a stall mode, `bimodal` with one,
`multimodal` with more.  Where none is found, and the iterations were so few that a stall mode of one in ten could not
have been proven (under 70 of them on fine buckets, under 50 on log2 ones), it is `too-few`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import exp, inf, log
from operator import lt
from typing import Literal

from stallscope.analysis.valley import TICKS_BLIND, Gap, find_gaps, least_stalls, rebin

STALL_MODE_NS = 5e6
STALL_MODE_OCTAVES = 3.0
MAIN_MODE_SHARE = 0.01
TOO_FEW_SHARE = 0.1  # fewer iterations than prove a stall mode of this share say nothing
AMPLE_SHARE = 1e-4  # more iterations than prove a stall mode of this share need no note
FINEST = 4  # bins an octave: finer ones hold less and prove no more
PROVEN_P, LOG2_PROVEN_P, SUSPECTED_P = 1e-4, 1e-3, 1e-2
RULE_OF_THREE = 3.0  # none seen in n: the rate is below 3/n with 95 % confidence (Hanley & Lippman-Hand 1983)

Shape = Literal["unimodal", "bimodal", "multimodal", "too-few"]


@dataclass(frozen=True, slots=True)
class Bins:
    """A histogram of iteration lengths.

    `edges_ns` ascend and are one more than `counts`; the first may be 0, none may be infinite (close an open last
    bucket at twice its lower edge).  `tick_ns` is the resolution of the clock, where it is coarser than the buckets;
    0 where it does not matter.  `per_octave` is 4 (or more) for buckets as fine as that, 1 when only log2 counts exist.
    Raises ValueError when edges and counts make no histogram.
    """

    edges_ns: tuple[float, ...]
    counts: tuple[int, ...]
    tick_ns: float = 0.0
    per_octave: int = 4

    def __post_init__(self) -> None:
        edges, counts = self.edges_ns, self.counts
        if (edges or counts) and len(edges) != len(counts) + 1:
            raise ValueError(f"{len(counts)} counts need {len(counts) + 1} edges, not {len(edges)}")
        if edges and not (edges[0] >= 0 and edges[-1] < inf and all(map(lt, edges, edges[1:]))):
            raise ValueError("edges must ascend, from 0 ns or more, and be finite")
        if min(counts, default=0) < 0:
            raise ValueError("counts must not be negative")
        if self.per_octave < 1 or not 0 <= self.tick_ns < inf:
            raise ValueError(f"no clock ticks every {self.tick_ns} ns, or no octave has {self.per_octave} buckets")


@dataclass(frozen=True, slots=True)
class Mode:
    """A lump of iterations, all of which lie in the buckets from `lo_ns` to `hi_ns`.

    `peak_ns` is where it sits: the median of its iterations, which for a lump symmetric in log time is its peak.  The
    fullest octave was tried and jumps with noise and bucket borders: a stall mode of the corpus has it 0.22 octaves
    off at the 90th percentile, the median 0.02 (on log2 counts 0.46 and 0.22).
    """

    lo_ns: float
    hi_ns: float
    peak_ns: float
    iterations: int
    share: float
    stall_mode: bool


@dataclass(frozen=True, slots=True)
class Valley:
    """What separates two modes: `threshold_ns` is the middle of its emptiest stretch, which is `gap_octaves` wide;
    `p` bounds the chance that one mode alone shows such a valley; `left` and `right` are the iterations on either
    side, of the whole histogram."""

    threshold_ns: float
    p: float
    gap_octaves: float
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Modality:
    """The modes of a histogram, fastest first, the valleys between them (one fewer), the verdict about stalls, and in
    words what else must be said: too little to be sure, a second mode suspected, a plain mode ("" for nothing)."""

    shape: Shape
    modes: tuple[Mode, ...]
    valleys: tuple[Valley, ...]
    note: str


def find_modes(bins: Bins, *, floor_ns: float = 1e6) -> Modality:
    """The modes of a histogram, split only at valleys that begin at `floor_ns` or later: what separates shorter
    iterations from each other is no stall."""
    below = [0, *accumulate(bins.counts)]
    total = below[-1]
    if not total:
        return Modality("too-few", (), (), "no iterations were recorded")
    proven_p = LOG2_PROVEN_P if bins.per_octave == 1 else PROVEN_P
    grid = rebin(bins.edges_ns, below, min(bins.per_octave, FINEST), bins.tick_ns)
    gaps = find_gaps(grid, max(floor_ns, TICKS_BLIND * bins.tick_ns), proven_p, SUSPECTED_P)
    proven = [gap for gap in gaps if gap.ln_p <= log(proven_p)]
    modes = _modes(bins, below, [gap.edge for gap in proven])
    least = least_stalls(STALL_MODE_OCTAVES, proven_p)
    shape = _shape(modes, least / total)
    notes = _plain_notes(modes)
    if not any(mode.stall_mode for mode in modes):
        suspect = _suspect(bins, below, proven, [gap for gap in gaps if gap not in proven])
        notes.append(_suspect_note(suspect) if suspect else _too_little_note(bins, below, modes, least))
    return Modality(shape, modes, tuple(_valley(gap, below) for gap in proven), "; ".join(filter(None, notes)))


def suggested_threshold_ns(m: Modality) -> float | None:
    """The stall threshold that a histogram suggests: the valley below its fastest stall mode; None without one."""
    for valley, slower in zip(m.valleys, m.modes[1:], strict=True):
        if slower.stall_mode:
            return valley.threshold_ns
    return None


def quantile_ns(bins: Bins, below: Sequence[int], rank: float) -> float:
    """The length that `rank` iterations stay below, by log interpolation within its bucket; `below` are the
    iterations under each edge.  Off by at most the bucket, by 0.2 octaves at the 90th percentile on log2 counts."""
    at = max(bisect_left(below, rank), 1) - 1
    low, high = bins.edges_ns[at], bins.edges_ns[at + 1]
    part = (rank - below[at]) / bins.counts[at]
    return low * (high / low) ** part if low else high * part


def _modes(bins: Bins, below: Sequence[int], splits: Iterable[int]) -> tuple[Mode, ...]:
    """The modes between the edges `splits`, each judged against the main mode."""
    modes = [_mode(bins, below, low, high) for low, high in pairwise([0, *splits, len(bins.counts)])]
    slow_ns = _stall_mode_ns(_main(modes))
    return tuple(replace(mode, stall_mode=mode.peak_ns >= slow_ns) for mode in modes)


def _main(modes: Iterable[Mode]) -> Mode:
    return next(mode for mode in modes if mode.share >= MAIN_MODE_SHARE)


def _stall_mode_ns(main: Mode) -> float:
    return max(STALL_MODE_NS, main.peak_ns * 2**STALL_MODE_OCTAVES)


def _mode(bins: Bins, below: Sequence[int], low: int, high: int) -> Mode:
    """The mode of the buckets between two edges, not yet judged."""
    lo_ns = bins.edges_ns[bisect_right(below, below[low]) - 1]
    hi_ns = bins.edges_ns[bisect_left(below, below[high])]
    iterations = below[high] - below[low]
    median_ns = quantile_ns(bins, below, below[low] + iterations / 2)
    return Mode(lo_ns, hi_ns, median_ns, iterations, iterations / below[-1], stall_mode=False)


def _valley(gap: Gap, below: Sequence[int]) -> Valley:
    left = below[gap.edge]
    return Valley(2 ** ((gap.low + gap.high) / 2), exp(max(gap.ln_p, -700)), gap.high - gap.low, left, below[-1] - left)


def _shape(modes: Sequence[Mode], least_share: float) -> Shape:
    stall_modes = sum(mode.stall_mode for mode in modes)
    if stall_modes:
        return "bimodal" if stall_modes == 1 else "multimodal"
    return "too-few" if least_share > TOO_FEW_SHARE else "unimodal"


def _suspect(bins: Bins, below: Sequence[int], proven: Sequence[Gap], suspected: Sequence[Gap]) -> Mode | None:
    """The stall mode that the surest of the suspected valleys would make."""
    for gap in sorted(suspected, key=lambda gap: gap.ln_p):
        splits = sorted([gap.edge, *(other.edge for other in proven)])
        mode = _modes(bins, below, splits)[splits.index(gap.edge) + 1]
        if mode.stall_mode:
            return mode
    return None


def _plain_notes(modes: Sequence[Mode]) -> list[str]:
    main = _main(modes)
    return [
        f"plain mode, no stall mode: {mode.iterations:,} iterations near {_ms(mode.peak_ns)} ms"
        for mode in modes
        if mode is not main and not mode.stall_mode
    ]


def _suspect_note(suspect: Mode) -> str:
    return (
        f"suspected second mode: {suspect.iterations:,} iterations near {_ms(suspect.peak_ns)} ms; "
        "record about three times longer"
    )


def _too_little_note(bins: Bins, below: Sequence[int], modes: Sequence[Mode], least: int) -> str:
    """What so many iterations without a stall mode do not rule out."""
    total = below[-1]
    if least / total < AMPLE_SHARE:
        return ""
    if least >= total:
        return f"{total:,} iterations: too few to confirm any stall mode"
    note = f"{total:,} iterations: a stall mode rarer than {_percent(least / total)} could not be confirmed"
    slow_from = max(0, bisect_right(bins.edges_ns, _stall_mode_ns(_main(modes))) - 1)
    if below[slow_from] == total:
        note += f"; none seen: rate below {_percent(RULE_OF_THREE / total)} (95 %)"
    return note


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.2g}" if ns < 1e8 else f"{ns / 1e6:.0f}"
