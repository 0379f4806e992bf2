"""What the looks of the pulse's watchdog say of the stretches between them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stallscope.agent.exact_spans import _bound, _lend_stacks, _settle, _share_answers, of_exact
from stallscope.agent.spans import Span
from stallscope.agent.thread_facts import Facts
from stallscope.agent.turns import turned

MS = 1_000_000
C_CODE, PYTHON = ((object(), 1),), ((object(), 2),)


def tick(from_ms: int, at_ms: int, token: int, stack: Any = (), late_ms: int = 0) -> Any:
    """A look, and the stack that answered it ``late_ms`` after it was asked for."""
    return SimpleNamespace(from_ns=from_ms, at_ns=at_ms, token=token, stack=stack, late_ns=late_ms)


def described(ticks: list[Any]) -> list[tuple[Any, int]]:
    """Stack and lateness of each."""
    _bound(SimpleNamespace(end_ns=100, ticks=ticks))  # type: ignore[arg-type]
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


def met(to_ms: int, stack: Any, late_ms: int = 0, from_ms: int = 0, ran_ms: int | None = None) -> Span:
    """A stretch of computing, and the stack that answered the look at its end ``late_ms`` later."""
    span = stretch(from_ms * MS, to_ms * MS, (to_ms - from_ms if ran_ms is None else ran_ms) * MS, 0, stack)
    span.late_ns, span.answered_ns = late_ms * MS, (to_ms + late_ms) * MS
    return span


def cut(*spans: Span) -> list[tuple[float, float, Any, float]]:
    """From, to, stack and CPU time of each, in ms."""
    return [(one.from_ns / MS, one.to_ns / MS, one.stack, (one.cpu_ns or 0) / MS) for one in turned(list(spans), [])]


def test_half_of_the_time_between_two_answers_is_the_former_codes() -> None:
    parts = cut(met(40, C_CODE), met(100, PYTHON, 10, from_ms=40))
    assert parts == [(0, 40, C_CODE, 40), (40, 75, C_CODE, 35), (75, 100, PYTHON, 25)]


def test_the_turn_may_lie_behind_the_look_that_asked() -> None:
    """An import of which the last looks were answered as it was over, by the code behind it."""
    parts = cut(met(50, PYTHON, 4), met(58, C_CODE, 7, from_ms=50), met(66, C_CODE, 0, from_ms=58))
    assert parts == [(0, 50, PYTHON, 50), (50, 58, PYTHON, 8), (58, 59.5, PYTHON, 1.5), (59.5, 66, C_CODE, 6.5)]


def test_a_late_answer_comes_as_c_code_returns() -> None:
    parts = cut(met(10, C_CODE, 48), met(70, PYTHON, 4, from_ms=10))
    assert parts[1:] == [(10, 58, C_CODE, 48), (58, 70, PYTHON, 12)]


def test_what_a_late_answer_tells_began_before_it_was_asked_for() -> None:
    parts = cut(met(10, PYTHON, 2), met(20, C_CODE, 60, from_ms=10), met(90, C_CODE, 0, from_ms=20))
    assert [part[:3] for part in parts] == [(0, 10, PYTHON), (10, 16, PYTHON), (16, 20, C_CODE), (20, 90, C_CODE)]


def test_the_same_code_keeps_what_is_known_of_each_of_its_stretches() -> None:
    parts = turned([met(10, C_CODE, 1), met(20, C_CODE, 60, from_ms=10)], [])
    assert [part.late_ns for part in parts] == [1 * MS, 60 * MS]


def test_blocked_time_is_not_divided() -> None:
    blocked = stretch(40 * MS, 100 * MS, 10 * MS, 0, PYTHON, "S")
    assert turned([met(40, C_CODE), blocked], [])[1] is blocked


def test_a_wait_for_the_gil_that_the_answer_took_is_nobodys_time_to_divide() -> None:
    """C code returned after 5 ms, and gave the GIL to the agent for 5: as much computing lay before as behind."""
    wait = SimpleNamespace(start_ns=65 * MS, last_ns=70 * MS, duration_ns=5 * MS, count=1)
    spans = [met(60, C_CODE, 8), met(74, PYTHON, from_ms=60, ran_ms=9)]
    parts = [(one.to_ns / MS, one.stack, (one.cpu_ns or 0) / MS) for one in turned(spans, [wait])]  # type: ignore[list-item]
    assert parts == [(60, C_CODE, 60), (71, C_CODE, 6), (74, PYTHON, 3)]


def test_a_stretch_that_nobody_answered_has_the_stack_before() -> None:
    """It was told as computing in no code at all, most of all the end of an import."""
    spans = [met(10, C_CODE), met(18, (), from_ms=10), met(20, PYTHON, from_ms=18)]
    _lend_stacks(spans)
    assert [span.stack for span in spans] == [C_CODE, C_CODE, PYTHON]


def test_an_answer_that_came_when_the_iteration_was_over_is_late_until_its_end() -> None:
    assert described([tick(0, 90, 1, (), 500)]) == [((), 10)]


def seen(from_ms: int, at_ms: int, stack: Any, ran_ms: int, waited_ms: int) -> Any:
    """A look with its counters, answered at once."""
    return SimpleNamespace(
        from_ns=from_ms * MS, at_ns=at_ms * MS, token=at_ms, stack=stack, late_ns=0, cpu_ns=ran_ms * MS,
        run_delay_ns=waited_ms * MS, switches=None, system_call=-1, state="R",
    )  # fmt: skip


def test_no_part_holds_more_than_its_length_when_waits_for_a_cpu_lay_in_calls() -> None:
    """The GIL was asked for, and then a CPU waited for: most of that lies in the call, and none of it may be lost."""
    wait = SimpleNamespace(
        start_ns=62 * MS, last_ns=92 * MS, duration_ns=30 * MS, count=1, call=("gil", "lock", "", "")
    )
    stall = SimpleNamespace(
        start_ns=0, end_ns=100 * MS, cpu_ns=16 * MS, run_delay_ns=84 * MS, stops=[], calls=[wait],
        ticks=[seen(0, 60, C_CODE, 12, 48), seen(60, 99, PYTHON, 4, 35)],
    )  # fmt: skip
    spans = of_exact(stall)  # type: ignore[arg-type]
    assert all((one.cpu_ns or 0) + (one.run_delay_ns or 0) <= one.to_ns - one.from_ns for one in spans)
    assert sum(one.run_delay_ns or 0 for one in spans) == 84 * MS
