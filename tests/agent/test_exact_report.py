"""What the looks of the pulse's watchdog say of the stretches between them."""

from __future__ import annotations

from typing import Any

from stallscope.agent.exact_spans import _merged, _placed, _settle
from stallscope.agent.spans import Span
from stallscope.agent.thread_facts import Facts

MS = 1_000_000
C_CODE, PYTHON = ((object(), 1),), ((object(), 2),)


def stretch(from_ms: int, to_ms: int, ran_ms: int, waited_ms: int, stack: Any = PYTHON, state: str = "R") -> Span:
    """Of which the thread ran so long, and waited for a CPU so long."""
    span = Span(from_ms, to_ms, stack, Facts(None, state), None)
    span.cpu_ns, span.run_delay_ns = ran_ms, waited_ms
    return span


def counters(spans: list[Span]) -> list[tuple[int | None, int | None]]:
    """CPU time and waits of each, when they are settled."""
    _settle(spans)
    return [(one.cpu_ns, one.run_delay_ns) for one in spans]


def test_a_wait_for_a_cpu_that_was_counted_late_began_in_the_stretch_before() -> None:
    assert counters([stretch(0, 100, 10, 20), stretch(100, 150, 5, 95)]) == [(10, 70), (5, 45)]


def test_what_the_first_stretch_cannot_hold_is_the_next_ones() -> None:
    assert counters([stretch(0, 10, 5, 40), stretch(10, 60, 20, 0)]) == [(5, 5), (20, 30)]
    assert counters([stretch(0, 10, 5, 0), stretch(10, 60, 20, 50)]) == [(5, 5), (20, 30)]


def test_nothing_is_counted_in_a_stop() -> None:
    spans = [stretch(0, 20, 5, 5), stretch(20, 90, 0, 0, state="T"), stretch(90, 100, 5, 12)]
    assert counters(spans) == [(5, 12), (0, 0), (5, 5)]


def look(from_ms: int, to_ms: int, stack: Any, answered_ms: float | None = None, late_ms: float = 0) -> Span:
    """At a thread that runs: ``stack`` is where it was ``answered_ms`` after the stall had begun."""
    span = stretch(from_ms * MS, to_ms * MS, (to_ms - from_ms) * MS, 0, stack)
    span.answered_ns = to_ms * MS if answered_ms is None else int(answered_ms * MS)
    span.late_ns = int(late_ms * MS)
    return span


def placed(spans: list[Span]) -> list[tuple[float, float, Any]]:
    """From, to and stack of each; it ran all the time."""
    parts = _merged(_placed(spans))
    assert all(one.cpu_ns == one.to_ns - one.from_ns for one in parts)
    return [(one.from_ns / MS, one.to_ns / MS, one.stack) for one in parts]


def test_half_of_the_time_between_two_answers_is_the_former_codes() -> None:
    looks = [look(0, 40, C_CODE), look(40, 100, PYTHON, 110)]
    assert placed(looks) == [(0, 75, C_CODE), (75, 100, PYTHON)]


def test_an_answer_is_of_its_moment_and_not_of_the_moment_when_it_was_asked_for() -> None:
    looks = [look(0, 12, PYTHON, 13), look(12, 15, C_CODE, 51), look(15, 51, C_CODE)]
    assert placed(looks) == [(0, 32, PYTHON), (32, 51, C_CODE)]


def test_who_kept_the_gil_until_it_answered_did_so_since_it_was_asked() -> None:
    looks = [look(0, 12, PYTHON, 12), look(12, 25, C_CODE, 60, late_ms=46), look(25, 60, C_CODE, 60, late_ms=46)]
    assert placed(looks) == [(0, 13, PYTHON), (13, 60, C_CODE)]


def test_a_look_that_nobody_answered_has_the_nearest_answer() -> None:
    looks = [look(0, 10, PYTHON), look(10, 18, ()), look(18, 24, ()), look(24, 30, C_CODE)]
    assert placed(looks) == [(0, 20, PYTHON), (20, 30, C_CODE)]


def test_blocked_time_is_not_divided() -> None:
    spans = [stretch(0, 40, 40, 0, C_CODE), stretch(40, 100, 10, 0, PYTHON, "S")]
    assert [one.stack for one in _placed(spans)] == [C_CODE, PYTHON]
