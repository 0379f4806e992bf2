"""Cadence and coincidence: stalls that come at equal distances, and stalls of several processes in the same instant.

Cadence.  Under chance (a Poisson process) the gaps between stalls are exponential.  Once gaps under a fifth of a period
are folded away (several stalls of one tick), a gap lies within a tenth of that period with a chance of at most
0.8 / e * 0.25 = 0.092, whatever the rate; we reckon with 0.1.  So the number of gaps near a period is at most binomial,
and the periods that were tried are paid for (Bonferroni).  Gaps are compared and not phases (Rayleigh's test, the
periodogram): a timer that is set again after each tick drifts, and loses its phase within a hundred ticks.

Coincidence.  How often a stall of one process falls together with one of another by chance is measured, not assumed:
the other process's stalls are shifted by many times the window, which keeps its bursts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import exp, log
from operator import itemgetter
from typing import NamedTuple

from stallscope.analysis.culprits import Blame
from stallscope.analysis.findings import Pattern
from stallscope.analysis.valley import ln_tail
from stallscope.recording.nouns import Loop, Stall

PROVEN_P = 1e-3
FEWEST = 7  # stalls: six equal gaps are proven by the chances above, five are not
NEAR, FOLD, NEAR_CHANCE = 0.1, 0.2, 0.1
MOST_GAPS = 2 / 3  # what is true of fewer gaps is no cadence, however sure
TRIED = 20  # periods
SHORTEST_NS = 100_000_000  # a tenth of a second: faster beats are a loop that is always late, not a timer
IDLE = 4  # times the stalls' own length that a period must have: work end to end is regular too

_LEAST_LN = -700.0  # of what a float can hold

SHIFTS = 20
SHORTEST_WINDOW_NS = 5_000_000
MOST_STALLS = 0.5  # what is true of fewer stalls of a process is no finding


def patterns(stalls: Sequence[Stall], blames: Sequence[Blame], loops: Iterable[Loop]) -> tuple[Pattern, ...]:
    """What the times of the stalls say; `blames` are the culprits in order of rank, keyed by index in `stalls`."""
    return (*_cadences(stalls, blames), *_coincidence(stalls, {loop.id: loop for loop in loops}))


def _cadences(stalls: Sequence[Stall], blames: Sequence[Blame]) -> list[Pattern]:
    """Of each culprit in each loop; without any such, of all stalls of each loop."""
    series: dict[tuple[int, int | None], list[Stall]] = defaultdict(list)
    for stall in stalls:
        series[stall.loop_id, None].append(stall)
    for rank, one in enumerate(blames, 1):
        for index, ns in one.by_stall.items():
            if 2 * ns >= stalls[index].duration_ns:
                series[stalls[index].loop_id, rank].append(stalls[index])
    tried = {key: several for key, several in series.items() if len(several) >= FEWEST}
    beats = [(rank, cadence(several, len(tried))) for (_, rank), several in tried.items()]
    proven = sorted(((beat.ln_p, rank, beat) for rank, beat in beats if beat), key=itemgetter(0))
    of_culprits = {rank: _pattern(beat, rank) for _, rank, beat in reversed(proven) if rank is not None}
    return list(of_culprits.values()) or [_pattern(beat, None) for _, _, beat in proven[:1]]


class Beat(NamedTuple):
    """A period, how many of the gaps between ticks are near it, of how many, and ln of the chance of that."""

    period_ns: int
    near: int
    of: int
    ln_p: float


def _pattern(beat: Beat, rank: int | None) -> Pattern:
    every = f"{beat.period_ns / 1e9:.3g} s" if beat.period_ns >= 1e9 else f"{beat.period_ns / 1e6:.3g} ms"
    sentence = (
        f"{'stalls come' if rank is None else f'#{rank} comes'} every {every} ({beat.near} of {beat.of} gaps): look "
        "for a timer, a scheduled job, or the kernel's writeback"
    )
    p = exp(max(_LEAST_LN, beat.ln_p))
    return Pattern("cadence", sentence, beat.near + 1, beat.of + 1, p, period_ns=beat.period_ns, culprit=rank)


def cadence(stalls: Sequence[Stall], tests: int = 1) -> Beat | None:
    """The period at which most of these stalls come, if chance does not explain it; `tests` such series were tried."""
    starts = sorted(stall.start_ns for stall in stalls)
    lengths = sorted(stall.duration_ns for stall in stalls)
    least_ns = max(SHORTEST_NS, IDLE * lengths[len(lengths) // 2]) if lengths else SHORTEST_NS
    gaps = sorted(b - a for a, b in pairwise(starts) if b - a >= least_ns)
    if len(gaps) < FEWEST - 1:
        return None
    periods = {gaps[number * (len(gaps) - 1) // (TRIED - 1)] for number in range(TRIED)}
    beats = [_beat(starts, period, log(TRIED * tests)) for period in sorted(periods)]
    best = min((beat for beat in beats if beat), key=lambda beat: beat.ln_p, default=None)
    return best if best is not None and best.ln_p <= log(PROVEN_P) else None


def _beat(starts: Sequence[int], period: int, ln_tries: float) -> Beat | None:
    gaps = _folded(starts, FOLD * period)
    near = [gap for gap in gaps if abs(gap - period) <= NEAR * period]
    if len(gaps) < FEWEST - 1 or len(near) < MOST_GAPS * len(gaps):
        return None
    return Beat(sum(near) // len(near), len(near), len(gaps), ln_tail(len(near), len(gaps), NEAR_CHANCE) + ln_tries)


def _folded(starts: Sequence[int], dead_ns: float) -> list[int]:
    """The gaps between ticks, stalls that follow a tick within `dead_ns` being part of it."""
    ticks = [starts[0]]
    for start in starts:
        if start - ticks[-1] > dead_ns:
            ticks.append(start)
    return [b - a for a, b in pairwise(ticks)]


def _coincidence(stalls: Sequence[Stall], loops: Mapping[int, Loop]) -> list[Pattern]:
    """Whether the stalls of the process with fewest of them fall together with the others'."""
    starts: dict[int, list[int]] = defaultdict(list)
    for stall in stalls:
        if stall.loop_id in loops:
            starts[loops[stall.loop_id].process_id].append(stall.start_ns)
    series = {process: sorted(times) for process, times in starts.items() if len(times) >= FEWEST - 2}
    if len(series) < 2:
        return []
    lengths = sorted(stall.duration_ns for stall in stalls)
    window = max(SHORTEST_WINDOW_NS, lengths[len(lengths) // 2] // 4)
    together = {process: _together(process, series, window, len(series)) for process in series}
    joined = {process: one for process, one in together.items() if one is not None}
    if len(joined) < 2:
        return []
    hits, of, expected, p = min(joined.values(), key=lambda one: one[3])
    pids = {loop.process_id: loop.pid for loop in loops.values()}
    sentence = (
        f"{len(joined)} processes stall in the same instant: {hits} of {of} stalls of one fall within "
        f"{window / 1e6:.2g} ms of another's (chance would give {expected:.1f}). Look for what they share: a disk, a "
        "file lock, a CPU limit, a job that runs on all of them"
    )
    return [Pattern("coincidence", sentence, hits, of, p, pids=tuple(sorted(pids[process] for process in joined)))]


def _together(
    process: int, series: Mapping[int, Sequence[int]], window: int, tests: int
) -> tuple[int, int, float, float] | None:
    """Stalls of a process that fall together with another's, of how many, how many by chance, and with what p."""
    own = series[process]
    others = sorted(time for other, times in series.items() if other != process for time in times)
    hits = _hits(own, others, window)
    if hits < MOST_STALLS * len(own):
        return None
    shifts = [sign * (10 + 7 * number) * window for number in range(SHIFTS // 2) for sign in (1, -1)]
    by_chance = sum(_hits(own, [time + shift for time in others], window) for shift in shifts)
    chance = min(0.999, (1 + by_chance) / (1 + len(own) * SHIFTS))
    if hits <= chance * len(own):
        return None
    ln_p = ln_tail(hits, len(own), chance) + log(tests)
    return None if ln_p > log(PROVEN_P) else (hits, len(own), chance * len(own), exp(max(_LEAST_LN, ln_p)))


def _hits(own: Sequence[int], others: Sequence[int], window: int) -> int:
    """How many of `own` have one of `others` within the window; both ascend."""
    found = 0
    for time in own:
        at = bisect_left(others, time - window)
        found += at < len(others) and others[at] <= time + window
    return found
