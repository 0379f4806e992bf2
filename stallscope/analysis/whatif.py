"""What-if: the recorded iterations replayed without a culprit's time, or without a cause's.

Every iteration stays, shorter by what is taken away, and wall time stays as it was: as if requests came no faster.
That is the least.  Clients that wait for one answer before they ask again do come faster then, and meet more of what
is left: if all the time that is gained is filled with more of the same, wall time is shorter by it for the same work.
That is the most.  Where between them the truth lies is estimated from what came behind the stalls (`throttle`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import merge

from stallscope.analysis.culprits import NOBODYS, NOT_RUNNING, Blame
from stallscope.analysis.findings import Culprit, Gain, LoopFindings, Prediction, Removal, WhatIf
from stallscope.analysis.ledger import Cause, Slice
from stallscope.analysis.lengths import Lengths, changed
from stallscope.analysis.loops import examine_loop
from stallscope.analysis.throttle import Rebound
from stallscope.analysis.totals import together
from stallscope.errors import UnreadableInput
from stallscope.recording.nouns import Stall


class Replay:
    """The loops that stalled, ready to be asked what they were without a culprit."""

    def __init__(
        self,
        loops: Iterable[Lengths],
        wall_ns: int,
        threshold_ns: int,
        durations_ns: Sequence[int],
        blames: Sequence[Blame],
        rebound: Rebound,
    ) -> None:
        """`durations_ns` are the stalls that `blames` are for, by index."""
        held = list(loops)
        self._counts: Counter[int] = Counter()
        for one in held:
            for ns, count in one.known:
                self._counts[ns] += count
        self._longest_first = sorted(self._counts, reverse=True)
        self._stall_ns = sum(one.at_least(threshold_ns)[1] for one in held)
        self._durations_ns = durations_ns
        self._wall_ns = wall_ns
        self._threshold_ns = threshold_ns
        self._blames = blames
        self._rebound = rebound

    def without(self, *numbers: int) -> WhatIf:
        """What would be left without the blames of these numbers, from 1."""
        blamed: Counter[int] = Counter()
        for number in numbers:
            blamed.update(self._blames[number - 1].by_stall)
        changes = [(self._durations_ns[index], self._durations_ns[index] - ns) for index, ns in blamed.items()]
        gone_ns = sum(old - (new if new >= self._threshold_ns else 0) for old, new in changes)
        p99_ns = self._p99_ns(changes)
        if self._wall_ns <= 0:
            return WhatIf(p99_ns, None)
        factor = self._rebound.factor(numbers, blamed.total() / self._wall_ns)
        return WhatIf(p99_ns, min(1.0, factor * max(0, self._stall_ns - gone_ns) / self._wall_ns))

    def _p99_ns(self, changes: Iterable[tuple[int, int]]) -> int:
        """The length that 99 % of the iterations do not exceed, with those changed from old to new ns.

        From the longest down, for a hundredth of them is soon counted: an HdrHistogram walks all its thousands of
        buckets up, which for a hundred culprits was a third of all analysis.
        """
        left: Counter[int] = Counter()
        for old, new in changes:
            left[old] -= 1
            left[max(1, new)] += 1
        longer = self._counts.total() - int(0.99 * self._counts.total() + 0.5)
        for ns in merge(self._longest_first, sorted(left.keys() - self._counts.keys(), reverse=True), reverse=True):
            longer -= self._counts[ns] + left[ns]
            if longer < 0:
                return ns
        return 0


def gains(culprits: Iterable[Culprit], replay: Replay) -> tuple[Gain, ...]:
    """What the remedies would gain: the first one, and all of them."""
    ranks = tuple(one.rank for one in culprits if one.cause not in NOBODYS)
    if not ranks:
        return ()
    tried = [(), ranks[:1], *([ranks] if len(ranks) > 1 else [])]
    return tuple(Gain(some, replay.without(*some)) for some in tried)


def gone(removal: Removal, blames: Sequence[Blame]) -> frozenset[int]:
    """The numbers, from 1, of the blames that a removal takes away whole."""
    return frozenset(
        number
        for number, one in enumerate(blames, 1)
        if number in removal.culprits or (one.site.cause in removal.causes and one.site.kind == "site")
    )


def removed(removal: Removal, blames: Sequence[Blame], ranked: int, divided: Sequence[Sequence[Slice]]) -> Counter[int]:
    """The ns that a removal takes from each stall, by the stall's index; the first `ranked` blames are the culprits.

    Raises UnreadableInput where it names a culprit or a cause that the recording has not.
    """
    _require(removal, ranked, {part.cause for parts in divided for part in parts})
    taken: Counter[int] = Counter()
    whole = gone(removal, blames)
    for number, one in enumerate(blames, 1):
        if number in whole:
            taken.update(one.by_stall)
        elif one.site.kind == "pile-up":  # all parts of its stalls are its own, but for what the machine did
            wanted = set(removal.causes) - NOT_RUNNING
            for index in one.by_stall:
                taken[index] += sum(part.ns for part in divided[index] if part.cause in wanted)
    return +taken


def predict(
    removal: Removal,
    loops: Sequence[LoopFindings],
    stalls: Sequence[Stall],
    removed_ns: Mapping[int, int],
    threshold_ns: int,
    rebound: Callable[[float], float],
) -> Prediction:
    """The loops as they would have been, had `removed_ns` of the stalls not passed; `rebound` tells how much more of
    the rest would come, from the share of wall time that is gained."""
    changes: dict[int, list[tuple[int, int]]] = {one.loop.id: [] for one in loops}
    for index, ns in removed_ns.items():
        stall = stalls[index]
        changes[stall.loop_id].append((stall.duration_ns, max(1, stall.duration_ns - ns)))
    replayed = tuple(_replayed(one, changes[one.loop.id], threshold_ns) for one in loops)
    totals = together(replayed, threshold_ns)
    gone_ns = sum(removed_ns.values())
    busier_ns = totals.wall_ns - gone_ns
    least = totals.stall_wall_share
    return Prediction(
        removal=removal,
        removed_ns=gone_ns,
        loops=replayed,
        totals=totals,
        share_expected=None if least is None else min(1.0, least * rebound(gone_ns / totals.wall_ns)),
        share_if_clients_wait=min(1.0, totals.stall_ns / busier_ns) if totals.wall_ns and busier_ns > 0 else None,
    )


def _replayed(one: LoopFindings, changes: Sequence[tuple[int, int]], threshold_ns: int) -> LoopFindings:
    """A loop with some iterations shorter, over the same wall time."""
    loop = one.loop._replace(last_ns=one.loop.opened_ns + one.wall_ns)
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
