"""From a recording to its findings: the table of contents of analysis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from stallscope.analysis.advice import advise
from stallscope.analysis.arrival import Arrival, arrival
from stallscope.analysis.culprits import Blame, blame, handler_of, rank
from stallscope.analysis.findings import Culprit, Findings, Log2Row, LoopFindings, Percentiles, StallFindings
from stallscope.analysis.ledger import Slice, divide, ledger
from stallscope.analysis.lengths import Lengths, lengths, moments, quantiles_ns
from stallscope.analysis.mode_causes import mode_causes
from stallscope.analysis.modes import find_modes
from stallscope.analysis.whatif import Replay
from stallscope.recording.nouns import Loop, Missing, Recording, Stall

SATURATED_ZERO_WAITS = 0.99
SATURATED_UTILIZATION = 0.95


def examine(recording: Recording, threshold_ns: int | None = None) -> Findings:
    """All that can be said about a recording, its stalls judged by `threshold_ns` (default: the recording's own).

    Below the recording's threshold no stall has details: counts then come from the histograms, and `missing` says so.
    """
    judged_ns = recording.threshold_ns if threshold_ns is None else threshold_ns
    stalls = sorted(
        (stall for stall in recording.stalls if stall.duration_ns >= judged_ns),
        key=lambda stall: (-stall.duration_ns, stall.start_ns, stall.loop_id),
    )
    held = {
        loop.id: lengths(loop, [stall for stall in recording.stalls if stall.loop_id == loop.id])
        for loop in recording.loops
    }
    loops = sorted(
        (_loop(loop, held[loop.id], recording.stalls, judged_ns) for loop in recording.loops),
        key=lambda one: (-one.stall_ns, -one.iterations, one.loop.id),
    )
    divided = [divide(stall, recording.threshold_ns) for stall in stalls]
    blames = blame(stalls, divided)
    culprits, others = rank(blames, sum(stall.duration_ns for stall in stalls))
    replay = _replay(loops, held, stalls, judged_ns)
    return Findings(
        recording=recording,
        threshold_ns=judged_ns,
        missing=(*recording.fidelity.missing, *_missing(recording, judged_ns)),
        loops=tuple(
            replace(one, mode_causes=mode_causes(one, held[one.loop.id], stalls, blames[: len(culprits)]))
            for one in loops
        ),
        culprits=tuple(_finished(culprits, blames, replay) + _saturations(loops, len(culprits))),
        others=others,
        stalls=tuple(_stalls(stalls, divided, blames, len(culprits))),
    )


def log2_rows(known: Iterable[tuple[int, int]]) -> tuple[Log2Row, ...]:
    """(ns, number) pairs by powers of two of whole microseconds, from zero to the longest."""
    counts: Counter[int] = Counter()
    for ns, count in known:
        counts[max(0, (ns // 1000).bit_length() - 1)] += count
    last = max(counts, default=-1)
    return tuple(Log2Row(2**k if k else 0, 2 ** (k + 1) - 1, counts[k]) for k in range(last + 1))


def _loop(loop: Loop, held: Lengths, stalls: Sequence[Stall], threshold_ns: int) -> LoopFindings:
    own = [stall for stall in stalls if stall.loop_id == loop.id]
    last_ns = max([loop.last_ns, *(stall.start_ns + stall.duration_ns for stall in own)])
    wall_ns = max(0, last_ns - loop.opened_ns)
    stall_count, stall_ns = held.at_least(threshold_ns)
    utilization = min(1.0, held.total_ns / wall_ns) if wall_ns else None
    zero_waits = None
    if loop.zero_waits is not None and held.iterations:
        zero_waits = min(1.0, loop.zero_waits / held.iterations)
    return LoopFindings(
        loop=loop,
        iterations=held.iterations,
        wall_ns=wall_ns,
        busy_ns=held.total_ns,
        utilization=utilization,
        percentiles=_percentiles(held),
        log2=log2_rows(held.known),
        modality=find_modes(held.bins),
        stall_count=stall_count,
        stall_ns=stall_ns,
        arrival=_arrival(loop, held, wall_ns, threshold_ns),
        zero_wait_share=zero_waits,
        saturated=(zero_waits or 0.0) > SATURATED_ZERO_WAITS and (utilization or 0.0) > SATURATED_UTILIZATION,
    )


def _percentiles(held: Lengths) -> Percentiles | None:
    longest = held.longest_ns
    if longest is None:
        return None
    p50, p90, p99, p99_9 = quantiles_ns(held.known)
    return Percentiles(p50, p90, p99, p99_9, longest)


def _arrival(loop: Loop, held: Lengths, wall_ns: int, threshold_ns: int) -> Arrival | None:
    if not wall_ns:
        return None
    if loop.coarse is not None:  # the middle of an octave says too little: let the neighbours' counts shape it
        return arrival(held.bins, wall_ns, threshold_ns)
    sums, squares = moments(held)
    return arrival(held.bins, wall_ns, threshold_ns, sums_ns=sums, squares_ns2=squares)


def _replay(
    loops: Iterable[LoopFindings], held: dict[int, Lengths], stalls: Sequence[Stall], threshold_ns: int
) -> Replay:
    stalled = [one for one in loops if one.stall_count]
    wall_ns = sum(one.wall_ns for one in stalled)
    durations = [stall.duration_ns for stall in stalls]
    return Replay((held[one.loop.id] for one in stalled), wall_ns, threshold_ns, durations)


def _finished(culprits: Sequence[Culprit], blames: Sequence[Blame], replay: Replay) -> list[Culprit]:
    """The culprits with their advice and what their absence would gain."""
    return [
        replace(
            culprit,
            advice=advise(culprit, [other for other in culprits if other.handler == culprit.handler]),
            what_if=replay.without(one.by_stall),
        )
        for culprit, one in zip(culprits, blames, strict=False)  # the first blames are the culprits
    ]


def _saturations(loops: Iterable[LoopFindings], ranked: int) -> list[Culprit]:
    found = [
        Culprit(0, "saturation", "python-cpu", 0, 0.0, 0, 0, loop_id=one.loop.id) for one in loops if one.saturated
    ]
    return [replace(one, rank=rank, advice=advise(one)) for rank, one in enumerate(found, ranked + 1)]


def _stalls(
    stalls: Sequence[Stall], divided: Sequence[Sequence[Slice]], blames: Sequence[Blame], ranked: int
) -> Iterable[StallFindings]:
    worst: dict[int, tuple[int, int]] = {}  # stall -> (ns, minus the rank) of the culprit that took most of it
    for number, one in enumerate(blames, 1):
        for index, ns in one.by_stall.items():
            worst[index] = max(worst.get(index, (0, 0)), (ns, -number))
    for index, (stall, parts) in enumerate(zip(stalls, divided, strict=True)):
        number = -worst.get(index, (0, 0))[1]
        heaviest = max(parts, key=lambda part: part.ns, default=None)
        handler = handler_of(stall, heaviest.stack if heaviest else ())
        yield StallFindings(stall, ledger(parts), handler, number if 0 < number <= ranked else None)


def _missing(recording: Recording, threshold_ns: int) -> Iterable[Missing]:
    if threshold_ns < recording.threshold_ns:
        recorded = f"{recording.threshold_ns / 1e6:g} ms"
        yield Missing(
            f"details of stalls shorter than {recorded}",
            f"the recording was made with a threshold of {recorded}; shorter ones are counted from the histograms",
        )
    if any(loop.last_ns <= loop.opened_ns for loop in recording.loops if loop.counts):
        yield Missing("utilization, and what an arrival feels", "how long the loop was watched is not known")
    if recording.suppressed:
        yield Missing(
            f"details of {recording.suppressed:,} stalls",
            "they came faster than details are kept; counts and histograms include them",
        )
    if not recording.complete:
        yield Missing("what came after the recording's last second", "the recorder was killed before it could finish")
