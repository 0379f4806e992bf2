"""What the looks of the pulse's watchdog say of the stretches between them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stallscope.agent.exact_report import _carry_back, _share_answers

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


def test_a_wait_for_a_cpu_that_was_counted_late_began_in_the_stretch_before() -> None:
    spans: list[Any] = [
        SimpleNamespace(from_ns=0, to_ns=100, cpu_ns=10, run_delay_ns=20),
        SimpleNamespace(from_ns=100, to_ns=150, cpu_ns=5, run_delay_ns=95),
    ]
    _carry_back(spans)
    assert [one.run_delay_ns for one in spans] == [70, 45]
