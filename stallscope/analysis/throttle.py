"""How far stalls hold back the very work that stalls: what decides what a remedy leaves.

While a loop stalls nothing new begins.  Work that goes on being asked for meanwhile (requests from many independent
clients, a timer) is done right behind the stall, in a burst; its rate does not depend on stalls, and does not change
when some of them are taken away.  Work of few clients that wait for an answer before they ask again is not asked for
meanwhile: nothing of it comes behind the stall, and its rate grows when stalls are taken away.  So

    held back = 1 - (begun behind stalls, beyond chance) / (rate elsewhere x time in stalls)

is 0 for the first kind and 1 for the second, and a client that thinks for a mean time Z in a stall of length s lies
at 1 - (Z / s) (1 - exp(-s / Z)) between (the mean wait of one whose thinking ends at random in the stall, by s).  If
stalls of a share `a` of wall time are taken away, such work comes 1 / (1 - held back x a) times as often.

On the sample server, 8 s each, it was 0.95 to 1.04 for the log writes, which six busy connections make, and about 0.1
for reads and opens, which three connections make that rest for 120 ms in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stallscope.analysis.culprits import NOBODYS, Blame
from stallscope.analysis.findings import LoopFindings
from stallscope.recording.nouns import Stall

BEHIND_NS = 10_000_000  # a burst that was held up begins its own stall within so long
DOUBT = 4.0  # as many expected events as the even odds are worth that stand in for what is not known
SOLE = 0.75  # a stall that is less one culprit's than this may have been begun by another


@dataclass(frozen=True, slots=True)
class Stillness:
    """When nothing could begin: stall time, the time close behind stalls, all other time, in ns; and which stalls, by
    index, began close behind another one."""

    stalled_ns: int
    behind_ns: int
    free_ns: int
    behind: frozenset[int]


def stillness(stalls: Sequence[Stall], loops: Sequence[LoopFindings]) -> Stillness:
    """Of all loops together, each for itself."""
    own: dict[int, list[int]] = defaultdict(list)
    for index, stall in enumerate(stalls):
        own[stall.loop_id].append(index)
    stalled_ns = sum(stall.duration_ns for stall in stalls)
    behind_ns, behind = 0, set()
    for indices in own.values():
        ended_ns = None
        for index in sorted(indices, key=lambda at: stalls[at].start_ns):
            if ended_ns is not None:
                gap_ns = max(0, stalls[index].start_ns - ended_ns)
                behind_ns += min(BEHIND_NS, gap_ns)
                if gap_ns <= BEHIND_NS:
                    behind.add(index)
            ended_ns = stalls[index].start_ns + stalls[index].duration_ns
    wall_ns = sum(one.wall_ns for one in loops if one.loop.id in own)
    return Stillness(stalled_ns, behind_ns, max(0, wall_ns - stalled_ns - behind_ns), frozenset(behind))


def held_back(one: Blame, stalls: Sequence[Stall], still: Stillness) -> float:
    """From 0, comes whatever happens, to 1, waits for its answers; near one half where too little is known."""
    if one.site.kind != "site" or one.site.cause in NOBODYS:
        return 0.0  # nobody asks for these
    behind = elsewhere = 0.0
    for index, ns in one.by_stall.items():
        sole = ns >= SOLE * stalls[index].duration_ns
        if index in still.behind:
            behind += 1
        elif sole:
            elsewhere += 1
        else:
            behind, elsewhere = behind + 0.5, elsewhere + 0.5
    rate = elsewhere / still.free_ns if still.free_ns else 0.0
    expected = rate * still.stalled_ns
    found = 1 - (behind - rate * still.behind_ns) / expected if expected else 0.5
    return (expected * min(1.0, max(0.0, found)) + DOUBT * 0.5) / (expected + DOUBT)


class Rebound:
    """How much more there will be of what is left, once something is taken away."""

    def __init__(self, blames: Sequence[Blame], stalls: Sequence[Stall], loops: Sequence[LoopFindings]) -> None:
        still = stillness(stalls, loops)
        self._kinds = [(one.ns, held_back(one, stalls, still)) for one in blames]

    def factor(self, gone: Collection[int], removed_share: float) -> float:
        """Without the blames of these numbers (from 1), which took that share of wall time."""
        left = [kind for number, kind in enumerate(self._kinds, 1) if number not in gone]
        total_ns = sum(ns for ns, _ in left)
        return sum(ns * _comes_again(held, removed_share) for ns, held in left) / total_ns if total_ns else 1.0


def _comes_again(held: float, removed_share: float) -> float:
    """How many times as often work comes that was held back so far, once that share of wall time is free."""
    return 1 / max(0.01, 1 - held * removed_share)
