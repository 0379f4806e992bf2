"""A glance at a recording while it is made: what its loops do now, and who is to blame in its latest stalls.

Less than `examine`, and a quarter of its cost: no advice, no prediction, nothing about what others feel. A view asks
for it again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from stallscope.analysis.culprits import blame, heaviest_first, rank, short_handlers
from stallscope.analysis.findings import Culprit, Log2Row
from stallscope.analysis.ledger import Slice, divide
from stallscope.analysis.lengths import Lengths, lengths
from stallscope.analysis.loops import log2_rows
from stallscope.analysis.modes import Modality, find_modes, quantile_ns
from stallscope.analysis.versions import with_settled_names
from stallscope.recording.nouns import Loop, Recording, Stall


@dataclass(frozen=True, slots=True)
class LoopGlance:
    """One loop so far. Lengths of iterations to the bucket, 3 %; None without any."""

    loop: Loop
    iterations: int
    p50_ns: float | None
    p99_ns: float | None
    longest_ns: int | None
    stall_count: int
    stall_ns: int
    log2: tuple[Log2Row, ...]
    modality: Modality


@dataclass(frozen=True, slots=True)
class Glance:
    """The loops, that with the most stall time first, and the culprits of the latest ``stalls_kept`` stalls."""

    threshold_ns: int
    loops: tuple[LoopGlance, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    stalls_kept: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """What a loop did in the time just past, ``window_s`` seconds of it."""

    window_s: float
    iterations_a_second: float
    stalls_a_minute: float
    utilization: float
    """An iteration in progress counts with its part of the window."""


@dataclass(frozen=True, slots=True)
class LiveNumbers:
    """All that a view of the present shows. ``paces`` and ``running`` (the iteration in progress, as an unfinished
    stall however young) are by the loop's number."""

    title: str
    elapsed_s: float
    iterations: int
    stalls: int
    worst_ns: int
    glance: Glance
    paces: Mapping[int, Pace] = field(default_factory=dict)
    running: Mapping[int, Stall] = field(default_factory=dict)


class Glances:
    """Takes one look after the other at a growing recording; what was found of a stall is kept for the next."""

    def __init__(self) -> None:
        self._divided: dict[tuple[int, int, int], list[Slice]] = {}

    def look(self, recording: Recording) -> Glance:
        """What can be said of a recording so far; `recording.stalls` may be the latest only."""
        recording = with_settled_names(recording)
        own: dict[int, list[Stall]] = {loop.id: [] for loop in recording.loops}
        for stall in recording.stalls:
            own[stall.loop_id].append(stall)
        found = [_sketch(loop, own[loop.id], recording.threshold_ns) for loop in recording.loops]
        found.sort(key=lambda one: (-one.stall_ns, -one.iterations, one.loop.id))
        return Glance(recording.threshold_ns, tuple(found), tuple(self._culprits(recording)), len(recording.stalls))

    def _culprits(self, recording: Recording) -> list[Culprit]:
        stalls = recording.stalls
        divided = self._all_divided(stalls, recording.threshold_ns)
        blames = heaviest_first(blame(stalls, divided, short_handlers(stalls, recording.handlers)))
        return rank(blames, sum(stall.duration_ns for stall in stalls))[0]

    def _all_divided(self, stalls: Sequence[Stall], threshold_ns: int) -> list[list[Slice]]:
        before = self._divided
        keys = [(stall.loop_id, stall.start_ns, stall.duration_ns) for stall in stalls]
        found = [
            before[key] if key in before and stall.finished else divide(stall, threshold_ns)
            for key, stall in zip(keys, stalls, strict=True)
        ]
        self._divided = dict(zip(keys, found, strict=True))
        return found


def _sketch(loop: Loop, own: Iterable[Stall], threshold_ns: int) -> LoopGlance:
    held = lengths(loop, own)
    stall_count, stall_ns = held.at_least(threshold_ns)
    p50_ns, p99_ns = _quantiles_ns(held)
    return LoopGlance(
        loop=loop,
        iterations=held.iterations,
        p50_ns=p50_ns,
        p99_ns=p99_ns,
        longest_ns=held.longest_ns,
        stall_count=stall_count,
        stall_ns=stall_ns,
        log2=log2_rows(held.known),
        modality=find_modes(held.bins),
    )


def _quantiles_ns(held: Lengths) -> tuple[float | None, float | None]:
    if not held.iterations:
        return None, None
    below = [0, *accumulate(held.bins.counts)]
    return (quantile_ns(held.bins, below, below[-1] * 0.5), quantile_ns(held.bins, below, below[-1] * 0.99))


def pace_of(window_s: float, iterations: int, busy_ns: int, *, stalls: int, stalls_s: float, age_ns: int) -> Pace:
    """The pace of a loop that ended so many iterations, as long together as `busy_ns`, within the window; `stalls` in
    the last `stalls_s` seconds, and an iteration in progress since `age_ns` (0: none)."""
    busy_s = (busy_ns + min(age_ns, window_s * 1e9)) / 1e9
    return Pace(
        window_s=window_s,
        iterations_a_second=iterations / window_s,
        stalls_a_minute=60 * stalls / stalls_s,
        utilization=min(1.0, busy_s / window_s),
    )
