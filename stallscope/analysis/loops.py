"""One loop: its percentiles, its modes, its stalls, and what an arrival feels of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stallscope.agent.layout import SUB_BUCKETS
from stallscope.analysis.arrival import Arrival, arrival
from stallscope.analysis.findings import Log2Row, LoopFindings, Percentiles
from stallscope.analysis.lengths import Lengths, moments, quantiles_ns
from stallscope.analysis.modes import find_modes
from stallscope.recording.nouns import Loop, Stall

SATURATED_ZERO_WAITS = 0.99
SATURATED_UTILIZATION = 0.8  # a wait with a timeout of zero may last as well, where the machine has no CPU to spare


def log2_rows(known: Iterable[tuple[int, int]]) -> tuple[Log2Row, ...]:
    """(ns, number) pairs by powers of two of whole microseconds, from zero to the longest."""
    counts: Counter[int] = Counter()
    for ns, count in known:
        counts[max(0, (ns // 1000).bit_length() - 1)] += count
    last = max(counts, default=-1)
    return tuple(Log2Row(2**k if k else 0, 2 ** (k + 1) - 1, counts[k]) for k in range(last + 1))


def examine_loop(loop: Loop, held: Lengths, stalls: Iterable[Stall], threshold_ns: int) -> LoopFindings:
    """One loop whose iterations were as long as `held` says; `stalls` are its own."""
    stalls = list(stalls)
    wall_ns = _watched_ns(loop, stalls)
    stall_count, stall_ns = held.at_least(threshold_ns)
    if not held.iterations:  # a source that lists only what was slow
        slow_ns = [stall.duration_ns for stall in stalls if stall.duration_ns >= threshold_ns]
        stall_count, stall_ns = len(slow_ns), sum(slow_ns)
    utilization = min(1.0, held.total_ns / wall_ns) if wall_ns and held.iterations else None
    zero_waits = None
    if loop.zero_waits is not None and held.iterations:
        zero_waits = min(1.0, loop.zero_waits / held.iterations)
    return LoopFindings(
        loop=loop,
        iterations=held.iterations,
        wall_ns=wall_ns,
        busy_ns=held.total_ns,
        utilization=utilization,
        percentiles=percentiles(held),
        held=held,
        log2=log2_rows(held.known),
        modality=find_modes(held.bins),
        stall_count=stall_count,
        stall_ns=stall_ns,
        arrival=felt(held, wall_ns, threshold_ns),
        zero_wait_share=zero_waits,
        saturated=(zero_waits or 0.0) > SATURATED_ZERO_WAITS and (utilization or 0.0) > SATURATED_UTILIZATION,
    )


def _watched_ns(loop: Loop, stalls: Iterable[Stall]) -> int:
    """How long a loop was watched; 0 where that is unknown, as of a loop with iterations and no end."""
    if loop.counts and loop.last_ns <= loop.opened_ns:
        return 0
    return max(0, *(one.start_ns + one.duration_ns - loop.opened_ns for one in stalls), loop.last_ns - loop.opened_ns)


def percentiles(held: Lengths) -> Percentiles | None:
    """None without iterations."""
    longest = held.longest_ns
    if longest is None:
        return None
    p50, p90, p99, p99_9 = quantiles_ns(held.known)
    return Percentiles(p50, p90, p99, p99_9, longest)


def felt(held: Lengths, wall_ns: int, threshold_ns: int) -> Arrival | None:
    """What an arrival feels of these iterations; None where wall time is unknown, or they are."""
    if not wall_ns or not held.iterations:
        return None
    if held.bins.per_octave < SUB_BUCKETS:  # the middle of an octave says too little: let neighbours' counts shape it
        return arrival(held.bins, wall_ns, threshold_ns)
    sums, squares = moments(held)
    return arrival(held.bins, wall_ns, threshold_ns, sums_ns=sums, squares_ns2=squares)
