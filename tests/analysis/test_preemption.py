"""Time that a thread waited for a CPU inside a call is not the call's."""

from __future__ import annotations

from stallscope.analysis.ledger import divide, ledger
from stallscope.analysis.preemption import waited_for_cpu
from stallscope.recording.nouns import Call, Resource, Span, Stall, TimedCall

MS = 1_000_000
WRITE = Call("write", Resource("path", "/var/log/access.log"))


def stall_with(span_delay_ms: int, call_ms: int) -> Stall:
    """20 ms, of which one call took some, and in which the thread waited for a CPU."""
    span = Span(0, 20 * MS, 4, (), None, "R", cpu_ns=0, run_delay_ns=span_delay_ms * MS)
    return Stall(1, 0, 20 * MS, spans=(span,), calls=(TimedCall(2 * MS, call_ms * MS, WRITE),))


def test_what_does_not_fit_outside_of_the_call_was_inside() -> None:
    assert waited_for_cpu(stall_with(15, 18)) == {0: 13 * MS}
    causes = ledger(divide(stall_with(15, 18), 10 * MS))
    assert causes == {"blocking-syscall": 5 * MS, "descheduled": 15 * MS}


def test_a_wait_that_fits_outside_is_left_there() -> None:
    assert waited_for_cpu(stall_with(2, 18)) == {}
    assert ledger(divide(stall_with(2, 18), 10 * MS)) == {"blocking-syscall": 18 * MS, "descheduled": 2 * MS}


def test_two_calls_share_it_by_their_length() -> None:
    span = Span(0, 20 * MS, 4, (), None, "R", cpu_ns=0, run_delay_ns=16 * MS)
    calls = (TimedCall(0, 5 * MS, WRITE), TimedCall(5 * MS, 15 * MS, WRITE))
    assert waited_for_cpu(Stall(1, 0, 20 * MS, spans=(span,), calls=calls)) == {0: 4 * MS, 1: 12 * MS}


def test_sums_and_sources_without_counters_are_left_alone() -> None:
    span = Span(0, 20 * MS, 4, (), None, "R", cpu_ns=0, run_delay_ns=19 * MS)
    summed = Stall(1, 0, 20 * MS, spans=(span,), calls=(TimedCall(0, 18 * MS, WRITE, calls=1000),))
    assert waited_for_cpu(summed) == {}
    bare = Stall(1, 0, 20 * MS, calls=(TimedCall(0, 18 * MS, WRITE),))
    assert waited_for_cpu(bare) == {}


GIL = Call("gil", None)


def test_the_time_outside_of_calls_is_no_room_where_the_thread_ran() -> None:
    span = Span(0, 20 * MS, 4, (), None, "R", cpu_ns=10 * MS, run_delay_ns=9 * MS)
    stall = Stall(1, 0, 20 * MS, spans=(span,), calls=(TimedCall(2 * MS, 6 * MS, GIL),))
    assert waited_for_cpu(stall) == {0: 5 * MS}
    assert ledger(divide(stall, 10 * MS)) == {"gil-wait": 1 * MS, "python-cpu": 10 * MS, "descheduled": 9 * MS}


def test_a_call_may_have_used_the_cpu_itself() -> None:
    span = Span(0, 20 * MS, 4, (), None, "R", cpu_ns=10 * MS, run_delay_ns=9 * MS)
    assert waited_for_cpu(Stall(1, 0, 20 * MS, spans=(span,), calls=(TimedCall(0, 10 * MS, WRITE),))) == {}


def test_many_short_waits_have_what_the_thread_was_idle_and_no_more() -> None:
    spans = (
        Span(0, 20 * MS, 4, (), None, "R", cpu_ns=20 * MS, run_delay_ns=0),
        Span(20 * MS, 40 * MS, 4, (), None, "R", cpu_ns=10 * MS, run_delay_ns=7 * MS),
    )
    stall = Stall(1, 0, 40 * MS, spans=spans, calls=(TimedCall(1 * MS, 8 * MS, GIL, calls=5),))
    assert ledger(divide(stall, 10 * MS)) == {"gil-wait": 3 * MS, "python-cpu": 30 * MS, "descheduled": 7 * MS}


def test_what_many_short_calls_ran_is_theirs() -> None:
    span = Span(0, 20 * MS, 4, (), None, "R", cpu_ns=18 * MS, run_delay_ns=0)
    stall = Stall(1, 0, 20 * MS, spans=(span,), calls=(TimedCall(0, 12 * MS, WRITE, calls=1000),))
    assert ledger(divide(stall, 10 * MS)) == {"blocking-syscall": 12 * MS, "python-cpu": 8 * MS}
