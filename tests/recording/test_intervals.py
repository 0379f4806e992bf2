"""A loop's histogram in the order of time, and the time of day at which it began."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope.agent.layout import bucket_of
from stallscope.recording.merge import merged
from stallscope.recording.nouns import Interval
from stallscope.recording.reader import read
from stallscope.recording.store import save
from stallscope.recording.writer import SECOND_NS
from tests.recording.examples import EVERYTHING, STARTED_NS, STARTED_WALL_S, THRESHOLD_NS, with_one_loop

FAST, SLOW = bucket_of(1000), bucket_of(THRESHOLD_NS)


def at(second: float) -> int:
    return STARTED_NS + round(second * SECOND_NS)


@pytest.fixture
def minutes(tmp_path: Path) -> Path:
    """A loop from second 2 to second 200, with iterations in its first, second and last minute."""
    file = tmp_path / "x.stall"
    writer = with_one_loop(file)
    loop = writer.loop(1, 4712, "asyncio", "second", at(2))
    for second, counts in ((3, {FAST: 5}), (59, {FAST: 1, SLOW: 1}), (61, {SLOW: 2}), (199, {FAST: 3})):
        writer.histogram(loop, at(second), counts)
    writer.loop_seen(loop, at(200), 0)
    writer.close(at(201))
    return file


def test_intervals_are_the_minutes_without_a_gap(minutes: Path) -> None:
    empty, loop = read(minutes, intervals=True).loops
    assert empty.intervals == ()
    assert loop.intervals == (
        Interval(at(2), at(60), {FAST: 6, SLOW: 1}),
        Interval(at(60), at(120), {SLOW: 2}),
        Interval(at(120), at(200), {FAST: 3}),
    )


def test_intervals_are_read_on_demand_alone(minutes: Path) -> None:
    whole = read(minutes, intervals=True)
    assert read(minutes) == whole._replace(loops=tuple(loop._replace(intervals=()) for loop in whole.loops))


def test_a_loop_that_ended_before_its_last_counts_came_has_no_interval_beyond_its_end(tmp_path: Path) -> None:
    file = tmp_path / "x.stall"
    writer = with_one_loop(file)
    for second in (5, 65):
        writer.histogram(1, at(second), {SLOW: 1})
    writer.loop_seen(1, at(58), 0)
    writer.close(at(70))
    (loop,) = read(file, intervals=True).loops
    assert [(one.from_ns, one.to_ns) for one in loop.intervals] == [(at(0), at(58)), (at(58), at(58))]


def test_the_time_of_day_outlives_a_copy(tmp_path: Path) -> None:
    save(EVERYTHING, tmp_path / "x.stall")
    assert read(tmp_path / "x.stall").started_wall_s == STARTED_WALL_S
    save(EVERYTHING._replace(started_wall_s=None), tmp_path / "unknown.stall")
    assert read(tmp_path / "unknown.stall").started_wall_s is None


def test_recordings_of_one_clock_have_one_time_of_day() -> None:
    early = EVERYTHING._replace(ended_ns=at(10))
    late = early._replace(started_ns=at(4), ended_ns=at(14), started_wall_s=STARTED_WALL_S + 4.01)
    assert merged([late, early]).started_wall_s == pytest.approx(STARTED_WALL_S, abs=0.02)
    other = late._replace(started_wall_s=STARTED_WALL_S + 3600)
    assert merged([early, other]).started_wall_s is None
    assert merged([early, late._replace(started_wall_s=None)]).started_wall_s is None
