"""What-if: the recorded iterations replayed without a culprit's time, or without a cause's.

Every iteration stays, shorter by what is taken away, and wall time stays as it was: as if requests came no faster.
Clients that wait for one answer before they ask again do come faster then, and meet more of what is left: if all the
time that is gained is filled with more of the same, wall time is shorter by it for the same work.  The truth lies
between the two, so both are told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from stallscope.analysis.culprits import NOBODYS, Blame
from stallscope.analysis.findings import Culprit, Gain, LoopFindings, Prediction, Removal, WhatIf
from stallscope.analysis.ledger import Cause, Slice
from stallscope.analysis.lengths import Lengths, changed, percentile_histogram
from stallscope.analysis.loops import examine_loop
from stallscope.analysis.totals import together
from stallscope.errors import UnreadableInput
from stallscope.recording.nouns import Stall


class Replay:
    """The loops that stalled, ready to be asked what they were without a culprit."""

    def __init__(self, loops: Iterable[Lengths], wall_ns: int, threshold_ns: int, durations_ns: Sequence[int]) -> None:
        """`durations_ns` are the stalls that culprits are blamed for, by index."""
        held = list(loops)
        self._histogram = percentile_histogram(pair for one in held for pair in one.known)
        self._stall_ns = sum(one.at_least(threshold_ns)[1] for one in held)
        self._durations_ns = durations_ns
        self._wall_ns = wall_ns
        self._threshold_ns = threshold_ns

    def without(self, blamed_ns: Mapping[int, int]) -> WhatIf:
        """What would be left, had those ns of those stalls not passed."""
        changes = [(self._durations_ns[index], self._durations_ns[index] - ns) for index, ns in blamed_ns.items()]
        gone_ns = sum(old - (new if new >= self._threshold_ns else 0) for old, new in changes)
        self._move(changes)
        p99_ns = int(self._histogram.get_percentile_to_value_dict([99.0])[99.0])
        self._move((new, old) for old, new in changes)
        left_ns = max(0, self._stall_ns - gone_ns)
        return WhatIf(p99_ns, min(1.0, left_ns / self._wall_ns) if self._wall_ns > 0 else None)

    def _move(self, changes: Iterable[tuple[int, int]]) -> None:
        for old, new in changes:
            self._histogram.record_value(max(1, old), -1)
            self._histogram.record_value(max(1, new), 1)


def gains(culprits: Sequence[Culprit], blames: Sequence[Blame], replay: Replay) -> tuple[Gain, ...]:
    """What the remedies would gain: the first one, and all of them; `blames` are those of the culprits."""
    own = [(one.rank, its) for one, its in zip(culprits, blames, strict=False) if one.cause not in NOBODYS]
    if not own:
        return ()
    tried = [own[:0], own[:1], *([own] if len(own) > 1 else [])]
    return tuple(
        Gain(tuple(rank for rank, _ in some), replay.without(_together(its for _, its in some))) for some in tried
    )


def _together(blames: Iterable[Blame]) -> Counter[int]:
    """The ns that these took of each stall, by the stall's index."""
    taken: Counter[int] = Counter()
    for one in blames:
        taken.update(one.by_stall)
    return taken


def removed(removal: Removal, blames: Sequence[Blame], ranked: int, divided: Sequence[Sequence[Slice]]) -> Counter[int]:
    """The ns that a removal takes from each stall, by the stall's index; the first `ranked` blames are the culprits.

    Raises UnreadableInput where it names a culprit or a cause that the recording has not.
    """
    _require(removal, ranked, {part.cause for parts in divided for part in parts})
    gone: Counter[int] = Counter()
    for number, one in enumerate(blames, 1):
        if number in removal.culprits or (one.site.cause in removal.causes and one.site.kind == "site"):
            gone.update(one.by_stall)
        elif one.site.kind == "pile-up":  # all parts of its stalls are its own
            for index in one.by_stall:
                gone[index] += sum(part.ns for part in divided[index] if part.cause in removal.causes)
    return +gone


def predict(
    removal: Removal,
    loops: Sequence[LoopFindings],
    stalls: Sequence[Stall],
    removed_ns: Mapping[int, int],
    threshold_ns: int,
) -> Prediction:
    """The loops as they would have been, had `removed_ns` of the stalls not passed."""
    changes: dict[int, list[tuple[int, int]]] = {one.loop.id: [] for one in loops}
    for index, ns in removed_ns.items():
        stall = stalls[index]
        changes[stall.loop_id].append((stall.duration_ns, max(1, stall.duration_ns - ns)))
    replayed = tuple(_replayed(one, changes[one.loop.id], threshold_ns) for one in loops)
    totals = together(replayed, threshold_ns)
    gone_ns = sum(removed_ns.values())
    busier_ns = totals.wall_ns - gone_ns
    return Prediction(
        removal=removal,
        removed_ns=gone_ns,
        loops=replayed,
        totals=totals,
        share_if_clients_wait=min(1.0, totals.stall_ns / busier_ns) if totals.wall_ns and busier_ns > 0 else None,
    )


def _replayed(one: LoopFindings, changes: Sequence[tuple[int, int]], threshold_ns: int) -> LoopFindings:
    """A loop with some iterations shorter, over the same wall time."""
    loop = replace(one.loop, last_ns=one.loop.opened_ns + one.wall_ns)
    return examine_loop(loop, changed(one.held, changes), (), threshold_ns)


def _require(removal: Removal, ranked: int, present: set[Cause]) -> None:
    """Raises UnreadableInput where a removal names what is not there."""
    for number in removal.culprits:
        if not 1 <= number <= ranked:
            have = f"its stalls have culprits 1 to {ranked}" if ranked else "nothing stalled in it"
            raise UnreadableInput(f"the recording has no culprit {number} to take away: {have}; see stallscope analyze")
    for cause in removal.causes:
        if cause not in present:
            told = ", ".join(sorted(present)) or "none, for nothing stalled"
            raise UnreadableInput(f"no stall of the recording has the cause {cause}: it has {told}")
