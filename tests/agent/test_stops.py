"""The part of a span in which the whole process was stopped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stallscope.agent.spans import Span
from stallscope.agent.stops import STOPPED, divided
from stallscope.agent.thread_facts import Facts

MS = 1_000_000


def span(cpu_ms: int | None = 0, delay_ms: int | None = 0, from_ms: int = 0, to_ms: int = 100) -> Span:
    """One of 100 ms in which the thread ran, and waited for a CPU, for so long."""
    one = Span(from_ms * MS, to_ms * MS, (), Facts(None, "R"), None)
    one.cpu_ns = None if cpu_ms is None else cpu_ms * MS
    one.run_delay_ns = None if delay_ms is None else delay_ms * MS
    return one


def call(from_ms: int, to_ms: int, count: int = 1, name: str = "read") -> Any:
    """A timed call, or the sum of many."""
    times = {"start_ns": from_ms * MS, "last_ns": to_ms * MS, "duration_ns": (to_ms - from_ms) * MS}
    return SimpleNamespace(**times, count=count, call=(name, "", "", ""))


def cut(one: Span, after_ms: int, until_ms: int, *calls: Any) -> list[Span]:
    """What a stop makes of a stall of one span."""
    return divided([one], [(after_ms * MS, until_ms * MS, until_ms * MS)], list(calls))


def parts(found: list[Span]) -> list[tuple[int, int, str]]:
    """(from, to, state) in ms."""
    return [(one.from_ns // MS, one.to_ns // MS, one.facts.state) for one in found]


def test_what_the_thread_did_not_spend_otherwise_is_the_stops() -> None:
    found = cut(span(cpu_ms=30, delay_ms=5), 20, 90)
    assert parts(found) == [(0, 25, "R"), (25, 90, STOPPED), (90, 100, "R")]
    assert [one.cpu_ns for one in found] == [25 * MS, 0, 5 * MS]
    assert [one.run_delay_ns for one in found] == [0, 0, 5 * MS]


def test_it_is_no_longer_than_the_process_can_have_been_stopped() -> None:
    assert parts(cut(span(), 40, 90)) == [(0, 40, "R"), (40, 90, STOPPED), (90, 100, "R")]


def test_a_call_that_goes_on_after_it_keeps_its_time() -> None:
    assert parts(cut(span(), 20, 60, call(0, 100))) == [(0, 100, "R")]


def test_a_call_that_ends_with_it_was_held_up_by_it() -> None:
    assert parts(cut(span(), 20, 99, call(0, 100))) == [
        (0, 20, "R"),
        (20, 99, STOPPED),
        (99, 100, "R"),
    ]


def test_sums_of_short_calls_keep_their_time() -> None:
    found = cut(span(), 0, 100, call(0, 30, count=1000))
    assert parts(found) == [(0, 30, "R"), (30, 100, STOPPED)]


def test_a_thread_that_ran_all_the_time_was_not_stopped() -> None:
    assert parts(cut(span(cpu_ms=100), 20, 60)) == [(0, 100, "R")]


@pytest.mark.parametrize("stop", [(0, 10), (90, 99)])
def test_a_stop_beside_the_span_is_none_of_its(stop: tuple[int, int]) -> None:
    assert parts(cut(span(from_ms=20, to_ms=80), *stop)) == [(20, 80, "R")]


def test_without_counters_the_stop_is_what_the_watchdog_saw() -> None:
    found = cut(span(None, None), 20, 60)
    assert parts(found) == [(0, 20, "R"), (20, 60, STOPPED), (60, 100, "R")]
    assert [one.cpu_ns for one in found] == [None, 0, None]


def test_waits_for_a_cpu_before_a_stop_that_were_counted_after_it_are_none_of_its() -> None:
    spans = [span(cpu_ms=10, to_ms=20), span(delay_ms=15, from_ms=20)]
    found = divided(spans, [(20 * MS, 100 * MS, 100 * MS)], [])
    assert parts(found) == [(0, 20, "R"), (20, 25, "R"), (25, 100, STOPPED)]


def test_a_watchdog_that_waited_for_a_cpu_before_the_stop_does_not_shorten_it() -> None:
    found = divided([span(cpu_ms=10)], [(10 * MS, 40 * MS, 100 * MS)], [])
    assert parts(found) == [(0, 10, "R"), (10, 100, STOPPED)]


def test_the_wait_for_the_gil_after_a_stop_does_not_shorten_it() -> None:
    assert parts(cut(span(cpu_ms=10, delay_ms=10), 10, 90, call(92, 100, name="gil"))) == [
        (0, 10, "R"),
        (10, 90, STOPPED),
        (90, 100, "R"),
    ]


def test_a_wait_for_the_gil_on_an_idle_machine_is_no_part_of_the_stop_before_it() -> None:
    found = cut(span(cpu_ms=12, delay_ms=1), 5, 90, call(91, 98, name="gil"))
    assert parts(found) == [(0, 9, "R"), (9, 90, STOPPED), (90, 100, "R")]
    assert [one.cpu_ns for one in found] == [9 * MS, 0, 3 * MS]
