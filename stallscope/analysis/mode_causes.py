"""From a mode to its causes: what the iterations of a stall mode were doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from stallscope.analysis.culprits import Blame
from stallscope.analysis.findings import LoopFindings, ModeCause
from stallscope.analysis.ledger import Cause, Slice
from stallscope.analysis.modes import Mode
from stallscope.recording.nouns import Stall


def mode_causes(
    loop: LoopFindings, stalls: Sequence[Stall], divided: Sequence[Sequence[Slice]], blames: Sequence[Blame]
) -> tuple[ModeCause, ...]:
    """For each stall mode of a loop its part of the busy time, and the culprits and causes that fill it.

    `divided` are the parts of each stall; `blames` the culprits in order of rank, keyed by index in `stalls`.
    """
    return tuple(
        _cause(number, mode, loop, _within(mode, loop, stalls), divided, blames)
        for number, mode in enumerate(loop.modality.modes, 1)
        if mode.stall_mode
    )


def _within(mode: Mode, loop: LoopFindings, stalls: Sequence[Stall]) -> dict[int, int]:
    """The lengths in ns of the loop's stalls that are of the mode, by index."""
    return {
        index: stall.duration_ns
        for index, stall in enumerate(stalls)
        if stall.loop_id == loop.loop.id and mode.lo_ns <= stall.duration_ns < mode.hi_ns
    }


def _cause(
    number: int,
    mode: Mode,
    loop: LoopFindings,
    own: Mapping[int, int],
    divided: Sequence[Sequence[Slice]],
    blames: Sequence[Blame],
) -> ModeCause:
    in_mode_ns = sum(ns * count for ns, count in loop.held.known if mode.lo_ns <= ns < mode.hi_ns)
    taken = {rank: sum(ns for at, ns in one.by_stall.items() if at in own) for rank, one in enumerate(blames, 1)}
    causes: Counter[Cause] = Counter()
    for at in own:
        for part in divided[at]:
            causes[part.cause] += part.ns
    total_ns = sum(own.values())
    return ModeCause(
        mode=number,
        busy_share=in_mode_ns / loop.busy_ns if loop.busy_ns else 0.0,
        culprits=tuple((rank, ns / total_ns) for rank, ns in Counter(taken).most_common() if ns),
        causes=tuple((cause, ns / total_ns) for cause, ns in causes.most_common() if ns),
    )
