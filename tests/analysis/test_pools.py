"""Thread pools: how many threads, and whether their queue would be the next stall."""

from __future__ import annotations

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Pool
from stallscope.analysis.pools import erlang_c
from stallscope.recording.nouns import Call, Resource, Span, Stall
from tests.analysis.recordings import FUTEX, MS, S, blocked, loop, path, recording, stack


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


def test_what_does_not_belong_in_a_thread_has_no_pool() -> None:
    assert pool(blocked(50 * MS, Call("connect", Resource("peer", "10.0.0.5:80")), stack(20))) is None
    assert pool(Stall(1, 0, 50 * MS)) is None
    assert pool(blocked(50 * MS, path("read", "/a"), stack(20)), wall_ns=0) is not None
