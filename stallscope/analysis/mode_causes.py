"""From a mode to its cause: what the iterations of a stall mode were doing."""

from __future__ import annotations

from collections.abc import Sequence

from stallscope.analysis.culprits import Blame
from stallscope.analysis.findings import LoopFindings, ModeCause
from stallscope.analysis.modes import Mode
from stallscope.recording.nouns import Stall


def mode_causes(loop: LoopFindings, stalls: Sequence[Stall], blames: Sequence[Blame]) -> tuple[ModeCause, ...]:
    """For each stall mode of a loop its part of the busy time, and the culprit that took most of it.

    `blames` are the culprits in order of rank, keyed by the index of a stall in `stalls`.
    """
    return tuple(
        _cause(number, mode, loop, stalls, blames)
        for number, mode in enumerate(loop.modality.modes, 1)
        if mode.stall_mode
    )


def _cause(number: int, mode: Mode, loop: LoopFindings, stalls: Sequence[Stall], blames: Sequence[Blame]) -> ModeCause:
    in_mode_ns = sum(ns * count for ns, count in loop.held.known if mode.lo_ns <= ns < mode.hi_ns)
    own = {
        index: stall.duration_ns
        for index, stall in enumerate(stalls)
        if stall.loop_id == loop.loop.id and mode.lo_ns <= stall.duration_ns < mode.hi_ns
    }
    taken = [sum(ns for index, ns in one.by_stall.items() if index in own) for one in blames]
    most = max(taken, default=0)
    return ModeCause(
        mode=number,
        busy_share=in_mode_ns / loop.busy_ns if loop.busy_ns else 0.0,
        culprit=taken.index(most) + 1 if most else None,
        culprit_share=most / sum(own.values()) if most else 0.0,
    )
