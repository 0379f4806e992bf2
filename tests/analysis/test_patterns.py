"""Cadence and coincidence: what is no chance is said, and what may be chance is not."""

from __future__ import annotations

from random import Random

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Pattern
from stallscope.recording.nouns import Process, Recording, Stall
from tests.analysis.recordings import MS, S, blocked, loop, path, recording, stack


def read(start_ns: float, line: int = 20, loop_id: int = 1) -> Stall:
    return blocked(30 * MS, path("read", "/a"), stack(line), round(start_ns))._replace(loop_id=loop_id)


def found(*stalls: Stall) -> tuple[Pattern, ...]:
    return examine(recording(stalls)).patterns


def test_a_stall_every_five_seconds_has_a_cadence() -> None:
    chance = Random(1)
    (one,) = found(*(read(k * 5 * S + chance.uniform(0, 0.2) * S) for k in range(12)))
    assert (one.kind, one.culprit, one.of) == ("cadence", 1, 12)
    assert one.period_ns == pytest.approx(5 * S, rel=0.02)
    assert "#1 comes every 5" in one.sentence
    assert one.p < 1e-6


def test_a_timer_that_drifts_keeps_its_cadence() -> None:
    chance, now, ticks = Random(2), 0.0, []
    for _ in range(300):
        now += chance.gauss(1, 0.02) * S
        ticks.append(read(now))
    (one,) = found(*ticks)
    assert one.period_ns == pytest.approx(S, rel=0.01)


def test_several_stalls_of_one_tick_are_one_tick() -> None:
    (one,) = found(*(read(k * 5 * S + j * 60 * MS) for k in range(12) for j in range(3)))
    assert one.period_ns == pytest.approx(5 * S, rel=0.01)


def test_the_cadence_of_one_culprit_is_found_among_others() -> None:
    chance = Random(3)
    noise = [read(chance.uniform(0, 60) * S, line=40) for _ in range(100)]
    ticks = [read(k * 5 * S, line=20) for k in range(12)]
    (one,) = found(*noise, *ticks)
    culprit = next(c for c in examine(recording([*noise, *ticks])).culprits if c.rank == one.culprit)
    assert culprit.location is not None
    assert culprit.location.line == 20


def test_chance_has_no_cadence() -> None:
    alarms = 0
    for seed in range(200):
        chance = Random(seed)
        alarms += bool(found(*(read(chance.uniform(0, 60) * S) for _ in range(8 + seed % 40))))
    assert alarms <= 1


def test_work_without_a_pause_has_no_cadence() -> None:
    assert found(*(read(k * 31 * MS) for k in range(200))) == ()
    assert found(*(read(k * 5 * S) for k in range(6))) == ()


def workers(series: list[list[float]]) -> Recording:
    """A recording of so many processes, with stalls that begin at those seconds."""
    stalls = [read(at * S, loop_id=number) for number, times in enumerate(series, 1) for at in times]
    loops = [
        loop([50_000] * 1000 + [30 * MS] * len(times), loop_id=number)._replace(process_id=number, pid=100 + number)
        for number, times in enumerate(series, 1)
    ]
    processes = tuple(Process(k, 100 + k, 1, "python", "", 0, 60 * S) for k in range(1, len(series) + 1))
    return recording(stalls, loops, processes=processes)


def test_three_workers_that_stall_at_once_are_a_coincidence() -> None:
    chance = Random(4)
    moments = [chance.uniform(0, 60) for _ in range(20)]
    made = workers([[at + chance.uniform(0, 0.004) for at in moments] for _ in range(3)])
    (one,) = [pattern for pattern in examine(made).patterns if pattern.kind == "coincidence"]
    assert (one.pids, one.of) == ((101, 102, 103), 20)
    assert one.stalls >= 18
    assert one.sentence.startswith("3 processes stall in the same instant")


def test_workers_that_stall_each_for_itself_are_none() -> None:
    for seed in range(100):
        chance = Random(seed)
        made = workers([[chance.uniform(0, 60) for _ in range(5 + seed)] for _ in range(3)])
        assert [one for one in examine(made).patterns if one.kind == "coincidence"] == []


def test_workers_under_the_same_bursts_of_load_are_none() -> None:
    chance = Random(5)
    busy = [10 + 20 * burst + chance.uniform(0, 3) for burst in range(2) for _ in range(20)]
    made = workers([[at + chance.uniform(-1, 1) for at in busy] for _ in range(2)])
    assert [one for one in examine(made).patterns if one.kind == "coincidence"] == []
