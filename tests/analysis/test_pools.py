"""Thread pools: how many threads, and whether their queue would be the next stall."""

from __future__ import annotations

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Pool
from stallscope.analysis.pools import erlang_c
from stallscope.recording.nouns import Call, Executor, Resource, Span, Stall, TimedCall
from tests.analysis.recordings import FUTEX, HANDLER, MS, S, blocked, loop, path, recording, stack


@pytest.mark.parametrize(
    ("servers", "work", "waits"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (10, 8.0, 0.4092), (5, 5.0, 1.0), (5, 9.0, 1.0), (4, 0.0, 0.0)],
)
def test_erlang_c_is_that_of_the_tables(servers: int, work: float, waits: float) -> None:
    assert erlang_c(servers, work) == pytest.approx(waits, abs=1e-4)


def pool(*stalls: Stall, wall_ns: int = 60 * S) -> Pool | None:
    loops = [loop([50_000] * 1000 + [stall.duration_ns for stall in stalls], wall_ns=wall_ns)]
    return examine(recording(stalls, loops)).culprits[0].pool


def test_the_pool_is_sized_by_what_was_measured() -> None:
    found = pool(*(blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(600)))
    assert found is not None
    assert (found.wait_ns, found.rate_per_s, found.compute_ns, found.most_threads) == (50 * MS, 10.0, 0, None)
    assert found.threads == 3
    assert found.utilization == pytest.approx(0.5 / 3)
    assert found.p_queued == pytest.approx(erlang_c(3, 0.5))
    assert not found.new_queue


def test_wait_and_compute_bound_the_threads() -> None:
    spans = (
        Span(0, 40 * MS, 16, stack(20, "load"), path("read", "/a"), "S", 0, 0, 0),
        Span(40 * MS, 50 * MS, 4, stack(21, "load"), FUTEX, "S", 10 * MS, 0, 0),
    )
    found = pool(Stall(1, 0, 50 * MS, spans=spans))
    assert found is not None
    assert (found.wait_ns, found.compute_ns) == (40 * MS, 10 * MS)
    assert found.most_threads == pytest.approx(5)


def test_a_pool_that_would_be_the_new_queue_is_called_so() -> None:
    long = [blocked(2 * S, path("read", "/a"), stack(20), k * 2 * S) for k in range(30)]
    assert not getattr(pool(*long), "new_queue", True)
    several = recording(
        [*long, *(blocked(9 * S, path("read", "/a"), stack(20), k) for k in range(30))], [loop([2 * S] * 60)]
    )
    found = examine(several).culprits[0].pool
    assert found is not None
    assert found.new_queue
    assert found.default_p_queued == 1.0


def test_stalls_that_cannot_be_are_no_reason_to_fail() -> None:
    """A damaged recording may hold more stall time than time."""
    stalls = [blocked(9000 * S, path("read", "/a"), stack(20), k) for k in range(600)]
    found = examine(recording(stalls)).culprits[0].pool
    assert found is not None
    assert (found.threads, found.default_p_queued, found.mean_queue_ns // S) == (512, 1.0, 9000)


def test_what_does_not_belong_in_a_thread_has_no_pool() -> None:
    assert pool(blocked(50 * MS, Call("connect", Resource("peer", "10.0.0.5:80")), stack(20))) is None
    assert pool(Stall(1, 0, 50 * MS)) is None
    assert pool(blocked(50 * MS, path("read", "/a"), stack(20)), wall_ns=0) is None  # watched for how long?


def reading(executor: Executor | None) -> Pool:
    """Ten calls a second of 50 ms: half a thread's work."""
    stalls = [blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(600)]
    loops = [loop([50_000] * 1000 + [50 * MS] * 600)]
    found = examine(recording(stalls, loops, executors=(executor,) if executor else ())).culprits[0].pool
    assert found is not None
    return found


def executor(most: int, busy: float, *, process: int = 1, default: bool = True) -> Executor:
    return Executor(process, "asyncio", default, most, most, 100, round(100 * busy), 40, 9)


def test_the_executor_that_is_there_has_its_own_work_already() -> None:
    room = reading(executor(6, 1.0))
    assert (room.default_threads, room.default_utilization, room.new_queue) == (6, 1.5 / 6, False)
    assert room.default_p_queued == pytest.approx(erlang_c(6, 1.5))
    full = reading(executor(6, 5.5))
    assert (full.default_utilization, full.default_p_queued, full.new_queue) == (1.0, 1.0, True)


def test_an_executor_of_another_process_or_that_is_no_default_says_nothing() -> None:
    for other in (None, executor(6, 5.5, process=2), executor(6, 5.5, default=False)):
        found = reading(other)
        assert (found.executor, found.default_threads, found.new_queue) == (None, 5, False)


def test_calls_that_were_counted_make_the_rate() -> None:
    timed = [TimedCall(k * S, 60 * MS, path("read", "/a"), stack(20), 30) for k in range(10)]
    stalls = [Stall(1, call.start_ns, 60 * MS, current=HANDLER, calls=(call,)) for call in timed]
    found = pool(*stalls)
    assert found is not None
    assert (found.wait_ns, found.rate_per_s) == (2 * MS, 300 / 60)
