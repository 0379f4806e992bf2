"""What the looks of the pulse's watchdog say of the stretches between them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stallscope.agent.exact_spans import _settle, _share_answers, _turned
from stallscope.agent.spans import Span
from stallscope.agent.thread_facts import Facts

C_CODE, PYTHON = ((object(), 1),), ((object(), 2),)


def tick(from_ms: int, at_ms: int, token: int, stack: Any = (), late_ms: int = 0) -> Any:
    """A look, and the stack that answered it ``late_ms`` after it was asked for."""
    return SimpleNamespace(from_ns=from_ms, at_ns=at_ms, token=token, stack=stack, late_ns=late_ms)


def described(ticks: list[Any]) -> list[tuple[Any, int]]:
    """Stack and lateness of each."""
    _share_answers(ticks)
    return [(one.stack, one.late_ns) for one in ticks]


def test_the_answer_before_describes_what_it_is_the_longer_part_of() -> None:
    looks = [tick(0, 10, 1, C_CODE, 48), tick(10, 50, 1, C_CODE, 48), tick(50, 60, 2, PYTHON, 0)]
    assert described(looks) == [(C_CODE, 48)] * 3


def test_a_look_without_an_answer_of_its_own_has_that_of_the_one_before() -> None:
    assert described([tick(0, 10, 1, C_CODE, 58), tick(10, 70, 2)]) == [(C_CODE, 58), (C_CODE, 58)]


def test_an_answer_that_came_early_is_not_the_next_stretchs() -> None:
    assert described([tick(0, 10, 1, PYTHON, 1), tick(10, 20, 2, C_CODE, 9)]) == [(PYTHON, 1), (C_CODE, 9)]


def test_looks_into_a_call_ask_for_no_stack() -> None:
    assert described([tick(0, 10, 0), tick(10, 20, 0), tick(20, 30, 1, PYTHON, 0)]) == [((), 0), ((), 0), (PYTHON, 0)]


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


def turned(spans: list[Span]) -> list[tuple[int, int, Any, int | None]]:
    """From, to, stack and CPU time of each."""
    return [(one.from_ns, one.to_ns, one.stack, one.cpu_ns) for one in _turned(spans)]


def test_half_of_the_time_between_two_answers_is_the_former_codes() -> None:
    spans = [stretch(0, 40, 40, 0, C_CODE), stretch(40, 100, 60, 0, PYTHON)]
    spans[1].late_ns = 10
    assert turned(spans) == [(0, 40, C_CODE, 40), (40, 75, C_CODE, 35), (75, 100, PYTHON, 25)]


def test_blocked_time_is_not_divided() -> None:
    assert len(turned([stretch(0, 40, 40, 0, C_CODE), stretch(40, 100, 10, 0, PYTHON, "S")])) == 2
