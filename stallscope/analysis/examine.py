"""From a recording to its findings: the table of contents of analysis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from stallscope.analysis.advice import advise
from stallscope.analysis.causes import causes
from stallscope.analysis.culprits import Blame, blame, handler_of, heaviest_first, rank, short_handlers
from stallscope.analysis.delays import delays
from stallscope.analysis.findings import Culprit, Findings, LoopFindings, Pool, Removal, StallFindings
from stallscope.analysis.ledger import Slice, divide, ledger
from stallscope.analysis.lengths import lengths
from stallscope.analysis.loops import examine_loop
from stallscope.analysis.mode_causes import mode_causes
from stallscope.analysis.patterns import patterns
from stallscope.analysis.pools import pool
from stallscope.analysis.throttle import Rebound
from stallscope.analysis.totals import together
from stallscope.analysis.versions import with_settled_names, with_versions_merged
from stallscope.analysis.whatif import Replay, gains, gone, predict, removed
from stallscope.recording.nouns import Missing, Recording, Stall


def examine(recording: Recording, threshold_ns: int | None = None, what_if: Removal | None = None) -> Findings:
    """All that can be said about a recording, its stalls judged by `threshold_ns` (default: the recording's own).

    Below the recording's threshold no stall has details: counts then come from the histograms, and `missing` says so.
    `what_if` asks for a prediction as well; UnreadableInput where it names what the recording has not.
    """
    recording = with_settled_names(recording)
    judged_ns = recording.threshold_ns if threshold_ns is None else threshold_ns
    stalls = sorted(
        (stall for stall in recording.stalls if stall.duration_ns >= judged_ns),
        key=lambda stall: (-stall.duration_ns, stall.start_ns, stall.loop_id),
    )
    loops = _loops(recording, judged_ns)
    divided = [divide(stall, recording.threshold_ns) for stall in stalls]
    blamed = blame(stalls, divided, short_handlers(stalls, recording.handlers))
    blames = heaviest_first(with_versions_merged(blamed, stalls, recording.loops))
    culprits, others = rank(blames, sum(stall.duration_ns for stall in stalls))
    rebound = Rebound(blames, stalls, loops)
    replay = _replay(loops, stalls, judged_ns, blames, rebound)
    return Findings(
        recording=recording,
        threshold_ns=judged_ns,
        missing=(*recording.fidelity.missing, *_missing(recording, judged_ns)),
        loops=tuple(
            replace(one, mode_causes=mode_causes(one, stalls, divided, blames[: len(culprits)])) for one in loops
        ),
        culprits=(
            *_finished(
                culprits, blames, replay, divided, lambda one, its: pool(one, its, stalls, divided, loops, recording)
            ),
            *_saturations(loops, len(culprits)),
        ),
        others=others,
        stalls=tuple(_stalls(stalls, divided, blames, len(culprits))),
        totals=together(loops, judged_ns),
        causes=causes(divided),
        gains=gains(culprits, replay),
        delays=delays(recording, loops, stalls, divided),
        patterns=patterns(stalls, blames[: len(culprits)], recording.loops),
        prediction=None
        if what_if is None
        else predict(
            what_if,
            loops,
            stalls,
            removed(what_if, blames, len(culprits), divided),
            judged_ns,
            partial(rebound.factor, gone(what_if, blames)),
        ),
    )


def _loops(recording: Recording, threshold_ns: int) -> list[LoopFindings]:
    """Every loop, that with the most stall time first."""
    own: dict[int, list[Stall]] = {loop.id: [] for loop in recording.loops}
    for stall in recording.stalls:
        own.setdefault(stall.loop_id, []).append(stall)
    found = (examine_loop(loop, lengths(loop, own[loop.id]), own[loop.id], threshold_ns) for loop in recording.loops)
    return sorted(found, key=lambda one: (-one.stall_ns, -one.iterations, one.loop.id))


def _replay(
    loops: Iterable[LoopFindings],
    stalls: Sequence[Stall],
    threshold_ns: int,
    blames: Sequence[Blame],
    rebound: Rebound,
) -> Replay:
    stalled = [one for one in loops if one.stall_count]
    wall_ns = sum(one.wall_ns for one in stalled)
    durations = [stall.duration_ns for stall in stalls]
    return Replay((one.held for one in stalled), wall_ns, threshold_ns, durations, blames, rebound)


def _finished(
    culprits: Sequence[Culprit],
    blames: Sequence[Blame],
    replay: Replay,
    divided: Sequence[Sequence[Slice]],
    pool_of: Callable[[Culprit, Blame], Pool | None],
) -> list[Culprit]:
    """The culprits with their advice, what their absence would gain, and the pool that they would need."""
    return [
        replace(
            culprit,
            advice=advise(culprit, [other for other in culprits if other.handler == culprit.handler]),
            stalls_ledger=ledger(part for index in one.by_stall for part in divided[index]),
            what_if=replay.without(culprit.rank),
            pool=pool_of(culprit, one),
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
        ordered = tuple(sorted(parts, key=lambda part: -part.ns))
        handler = handler_of(stall, ordered[0].stack if parts else ())
        yield StallFindings(stall, ledger(parts), handler, number if 0 < number <= ranked else None, ordered)


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
