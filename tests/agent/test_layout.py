"""The histogram's arithmetic: its buckets, and the copy of it in the hot path."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stallscope.agent import asyncio_hooks, layout
from stallscope.agent.aboard import Agent
from stallscope.agent.loop_state import LoopState

durations_ns = st.one_of(st.integers(0, 4096), st.integers(0, layout.MAX_NS), st.integers(0, 2**63 - 1))


@given(durations_ns)
def test_a_duration_lies_within_the_bounds_of_its_bucket(duration_ns: int) -> None:
    low, high = layout.bounds_ns(layout.bucket_of(duration_ns))
    assert low <= min(duration_ns, layout.MAX_NS) < high


@given(st.integers(0, layout.BUCKETS - 1))
def test_buckets_follow_each_other_without_a_gap(bucket: int) -> None:
    low, high = layout.bounds_ns(bucket)
    assert layout.bucket_of(low) == layout.bucket_of(high - 1) == bucket
    assert bucket == layout.BUCKETS - 1 or layout.bounds_ns(bucket + 1)[0] == high


@given(st.integers(1, layout.BUCKETS - 1))
def test_a_bucket_is_at_most_a_32nd_of_its_value_wide(bucket: int) -> None:
    low, high = layout.bounds_ns(bucket)
    assert (high - low) * layout.SUB_BUCKETS <= low


def test_durations_below_the_first_and_above_the_last_bucket_are_counted_there() -> None:
    assert layout.bucket_of(0) == 0
    assert layout.bucket_of(layout.MAX_NS) == layout.bucket_of(2**63) == layout.BUCKETS - 1


def test_sections_are_whole_pages_and_do_not_overlap() -> None:
    assert layout.LOOP_HISTOGRAM_AT + layout.BUCKETS * layout.CELL <= layout.LOOP_BYTES
    assert layout.PROGRESS_AT + layout.PROGRESS_BYTES <= layout.LOOP_HISTOGRAM_AT
    assert layout.LOOP_TEXT_AT + layout.LOOP_TEXT_BYTES <= layout.PROGRESS_AT
    assert layout.HANDLER_TEXT_AT + layout.HANDLER_TEXT_BYTES <= layout.HANDLER_HISTOGRAM_AT
    sizes = (layout.LOOP_BYTES, layout.HANDLER_BYTES, layout.RECORD_BYTES, layout.HANDLERS_AT, layout.RING_AT)
    assert [size % layout.PAGE for size in sizes] == [0] * 5


@given(st.lists(durations_ns.filter(lambda ns: ns < 2**62), min_size=1, max_size=5))
def test_the_wait_counts_each_iteration_in_the_same_bucket(spent_ns: list[int]) -> None:
    cells = [0] * (layout.LOOP_BYTES // layout.CELL)
    readings = _readings(spent_ns)
    state = LoopState(0, 0, 0, lambda: None)
    agent: Any = SimpleNamespace(alive=[1], long_ns=1_000_000, threshold_ns=2**63, memory=SimpleNamespace(cells=cells))
    agent.iteration_ended = partial(Agent.iteration_ended, agent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio_hooks, "monotonic_ns", lambda: next(readings))
        select = asyncio_hooks._selecting(agent, state, lambda timeout: [])
    for _ in range(len(spent_ns) + 1):
        select(None)
    counted = {bucket: count for bucket, count in enumerate(cells[state.base :][: layout.BUCKETS]) if count}
    expected = [layout.bucket_of(spent) for spent in spent_ns]
    assert counted == {bucket: expected.count(bucket) for bucket in expected}
    assert cells[layout.L_LONG] == sum(spent >= layout.LONG_NS for spent in spent_ns)
    beside = cells[layout.L_STARTED] + cells[layout.L_LONG]
    assert sum(cells[: layout.LOOP_HISTOGRAM_AT // layout.CELL]) == beside  # and nothing else


def _readings(spent_ns: list[int]) -> Any:
    """The clock as the wait reads it: at each return, and at the next entry."""
    now = 1_000
    yield now
    for spent in spent_ns:
        now += spent
        yield now
        now += 5_000
        yield now
