"""What a remedy leaves, foretold from one simulated server and held against another that has the remedy.

One loop serves clients one after the other; each thinks for a random time, asks, waits, and thinks again.  Many that
think for long are an open crowd, which asks whatever the loop does; few that hardly think ask only when answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heapreplace
from random import Random

import pytest

from stallscope.analysis.culprits import blame
from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Removal
from stallscope.analysis.ledger import divide
from stallscope.analysis.throttle import held_back, stillness
from stallscope.recording.nouns import Recording, Stall
from tests.analysis.recordings import MS, S, blocked, loop, path, recording, stack

WALL = 120 * S


@dataclass(frozen=True)
class Clients:
    """So many clients that think for so long on average, and what each of their requests stalls the loop for."""

    number: int
    think_ns: float
    stall_ns: int
    call: str


LOG = Clients(40, 8 * S, 40 * MS, "write")  # five a second, come what may
OPEN = Clients(60, 10 * S, 30 * MS, "read")
RESTING = Clients(3, 120 * MS, 30 * MS, "read")
BUSY = Clients(2, 40 * MS, 30 * MS, "read")


def served(seed: int, *kinds: Clients) -> Recording:
    """Two minutes of the loop."""
    chance = Random(seed)
    clients = [kind for kind in kinds for _ in range(kind.number)]
    ready = [(chance.expovariate(1 / kind.think_ns), number, kind) for number, kind in enumerate(clients)]
    heapify(ready)
    stalls: list[Stall] = []
    free = 0.0
    while True:
        at, number, kind = ready[0]
        start = max(at, free)
        free = start + kind.stall_ns
        if free > WALL:
            break
        line = 20 if kind.call == "read" else 30
        stalls.append(blocked(kind.stall_ns, path(kind.call, "/a"), stack(line), round(start)))
        heapreplace(ready, (free + chance.expovariate(1 / kind.think_ns), number, kind))
    durations = [50_000] * 1000 + [one.duration_ns for one in stalls]
    return recording(stalls, [loop(durations, wall_ns=WALL)], ended_ns=WALL)


def held(made: Recording, call: str) -> float:
    loops = examine(made).loops
    blames = blame(made.stalls, [divide(one, 10 * MS) for one in made.stalls])
    (mine,) = [one for one in blames if one.site.syscall == call]
    return held_back(mine, made.stalls, stillness(made.stalls, loops))


def test_a_crowd_asks_whatever_the_loop_does() -> None:
    assert held(served(1, LOG, OPEN), "read") < 0.2


def test_few_busy_clients_wait_for_their_answers() -> None:
    resting, busy = held(served(2, LOG, RESTING), "read"), held(served(2, LOG, BUSY), "read")
    assert resting < busy
    assert busy > 0.35  # two that think for 40 ms: 1 - (1 - exp(-1)) = 0.37 in a stall of 40 ms, more in queues


@pytest.mark.parametrize("left", [OPEN, RESTING, BUSY], ids=["crowd", "resting", "busy"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_left_is_foretold(left: Clients, seed: int) -> None:
    before = served(seed, LOG, left)
    rank = next(one.rank for one in examine(before).culprits if one.syscall == "write")
    foretold = examine(before, what_if=Removal((rank,))).prediction
    truth = examine(served(seed + 100, left)).totals.stall_wall_share
    assert foretold is not None
    assert truth is not None
    assert foretold.share_expected == pytest.approx(truth, rel=0.15)


def test_with_few_stalls_it_is_half_known() -> None:
    few = [blocked(50 * MS, path("read", "/a"), stack(20), k * 20 * S) for k in range(2)]
    assert 0.4 < held(recording(few), "read") < 0.6


def test_what_nobody_asks_for_does_not_come_more_often() -> None:
    made = recording([Stall(1, k * S, 50 * MS) for k in range(20)])
    blames = blame(made.stalls, [divide(one, 10 * MS) for one in made.stalls])
    assert held_back(blames[0], made.stalls, stillness(made.stalls, examine(made).loops)) == 0
