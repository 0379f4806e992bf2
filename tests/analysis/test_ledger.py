"""One stall's wall time divided among causes: each cause by hand-made evidence, and the sum by any evidence at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stallscope.analysis.ledger import CAUSES, divide, ledger
from stallscope.recording.nouns import Call, Frame, GcPause, Resource, Span, Stall, TimedCall
from tests.analysis.recordings import FUTEX, HANDLER, MS, THRESHOLD, path, sampled, stack

LENGTH = 50 * MS
SLEEP = Call("clock_nanosleep", Resource("timer", ""), "0.050 s")
IMPORTING = (
    Frame("<frozen importlib._bootstrap_external>", 1074, "FileLoader.get_data"),
    Frame("<frozen importlib._bootstrap>", 1176, "_find_and_load"),
)
HERE = stack(20)


def stall(spans: tuple[Span, ...] = (), **more: object) -> Stall:
    """A stall of 50 ms from time 0."""
    return Stall(1, 0, LENGTH, current=HANDLER, spans=spans, **more)  # type: ignore[arg-type]


def divided(one: Stall) -> dict[str, int]:
    """Its ledger, checked to sum to its duration."""
    found = ledger(divide(one, THRESHOLD))
    assert sum(found.values()) == one.duration_ns
    return {str(cause): ns for cause, ns in found.items()}


CASES = {
    "time.sleep": (stall(sampled(LENGTH, SLEEP, HERE)), "blocking-syscall"),
    "read": (stall(sampled(LENGTH, path("read", "/data/a.bin"), HERE)), "blocking-syscall"),
    "fsync": (stall(sampled(LENGTH, path("fsync", "/data/log"), HERE, state="D")), "blocking-syscall"),
    "flock": (stall(sampled(LENGTH, path("flock", "/run/lock"), HERE)), "blocking-syscall"),
    "Lock": (stall(sampled(LENGTH, FUTEX, HERE)), "lock-wait"),
    "CPU loop": (stall(sampled(LENGTH, FUTEX, HERE, cpu=0.97, switches_per_sample=0.5)), "python-cpu"),
    "CPU loop, call unreadable": (stall(sampled(LENGTH, None, HERE, cpu=1.0, state="R")), "python-cpu"),
    "gil-wait": (stall(sampled(LENGTH, FUTEX, HERE, cpu=0.02, switches_per_sample=0.5)), "gil-wait"),
    "native": (stall((Span(0, 49 * MS, 1, HERE, FUTEX, "S", late_ns=46 * MS),)), "native-cpu"),
    "native, sampled before": (
        stall(
            (Span(0, 3 * MS, 1, HERE, FUTEX, "S"), Span(3 * MS, 49 * MS, 1, HERE, FUTEX, "S", 46 * MS, 0, 0, 44 * MS))
        ),
        "native-cpu",
    ),
    "descheduled": (stall(sampled(LENGTH, None, HERE, cpu=0.1, delay=0.88, state="R")), "descheduled"),
    "import": (stall(sampled(LENGTH, FUTEX, stack(20, "Server.handle", *IMPORTING), cpu=0.95)), "import"),
    "stopped": (stall(sampled(LENGTH, None, HERE, state="T")), "suspended"),
    "gc": (stall(pauses=(GcPause(MS, 48 * MS, 2, HERE),)), "gc"),
    "timed call": (stall(calls=(TimedCall(0, LENGTH, path("openat", "/data/a")),)), "blocking-syscall"),
    "timed lock": (stall(calls=(TimedCall(0, LENGTH, Call("sem_wait")),)), "lock-wait"),
    "timed GIL": (stall(calls=(TimedCall(0, LENGTH, Call("gil")),)), "gil-wait"),
    "one sample, in a read": (stall((Span(0, 42 * MS, 1, HERE, path("read", "/a"), "S"),)), "blocking-syscall"),
    "one sample, in futex": (stall((Span(0, 42 * MS, 1, HERE, FUTEX, "S"),)), "python-cpu"),
    "one sample, in Event.wait": (
        stall(
            (
                Span(
                    0,
                    42 * MS,
                    1,
                    stack(20, "f", Frame("/usr/lib/python3.11/threading.py", 300, "Condition.wait")),
                    FUTEX,
                    "S",
                ),
            )
        ),
        "lock-wait",
    ),
    "one sample, running": (stall((Span(0, 42 * MS, 1, HERE, None, "R"),)), "python-cpu"),
    "one sample, page fault": (stall((Span(0, 42 * MS, 1, HERE, None, "D"),)), "blocking-syscall"),
    "nobody ran": (stall((Span(0, LENGTH, 1, (), None, "", MS, late_ns=48 * MS),)), "descheduled"),
    "nobody ran until the sample": (stall((Span(0, 48 * MS, 1, HERE, None, "R", MS, late_ns=45 * MS),)), "descheduled"),
    "sampler held up before": (stall((Span(0, 48 * MS, 1, HERE, None, "R", late_ns=90 * MS),)), "unexplained"),
    "fsync, running in the kernel": (
        stall(
            (
                Span(0, 3 * MS, 1, HERE, None, "R"),
                Span(3 * MS, 9 * MS, 2, HERE, None, "R", 2 * MS, 0, 0),
                Span(9 * MS, 40 * MS, 9, HERE, path("fsync", "/data/log"), "D", 2 * MS, 0, 1),
                Span(40 * MS, 48 * MS, 2, HERE, None, "R", 3 * MS, 0, 1),
            )
        ),
        "blocking-syscall",
    ),
    "no evidence": (stall(), "unexplained"),
}


@pytest.mark.parametrize("name", CASES)
def test_nine_tenths_of_a_stall_of_one_kind_are_of_its_cause(name: str) -> None:
    one, cause = CASES[name]
    assert divided(one)[cause] >= 0.88 * LENGTH


def test_a_mixture_is_split_by_its_counters() -> None:
    read = (
        Span(0, 3 * MS, 1, HERE, path("read", "/a"), "S"),
        Span(3 * MS, 30 * MS, 9, HERE, path("read", "/a"), "S", 0, 0, 0),
    )
    # On its way out of the read the thread waited for the GIL: half of this sample was still the read.
    out = Span(30 * MS, 33 * MS, 1, stack(21), FUTEX, "S", MS, 0, 1)
    computing = Span(33 * MS, 50 * MS, 5, stack(21), FUTEX, "S", 16 * MS, MS // 2, 3)
    found = divided(stall((*read, out, computing), pauses=(GcPause(40 * MS, 4 * MS, 2, HERE),)))
    assert found["blocking-syscall"] == 32 * MS
    assert found["gc"] == 4 * MS
    assert found["python-cpu"] == 13 * MS
    assert found["descheduled"] == MS // 2
    assert found["gil-wait"] == MS // 2


def test_a_sampler_that_waits_for_a_cpu_met_no_native_code() -> None:
    contended = Span(0, LENGTH, 1, HERE, None, "R", 28 * MS, 22 * MS, 0, 27 * MS)
    assert divided(stall((contended,))) == {"python-cpu": 28 * MS, "descheduled": 22 * MS}


def test_the_collector_takes_cpu_time_and_a_timed_call_does_not() -> None:
    spans = (Span(0, LENGTH, 10, HERE, FUTEX, "S", 30 * MS, 0, 4),)
    collected = divided(stall(spans, pauses=(GcPause(0, 20 * MS, 2, HERE),)))
    assert (collected["gc"], collected["python-cpu"]) == (20 * MS, 10 * MS)
    called = divided(stall(spans, calls=(TimedCall(0, 20 * MS, path("read", "/a")),)))
    assert (called["blocking-syscall"], called["python-cpu"]) == (20 * MS, 30 * MS)


def test_the_head_is_divided_as_what_follows_when_it_was_caught_in_the_same_code() -> None:
    follows = Span(10 * MS, LENGTH, 10, HERE, FUTEX, "S", 20 * MS, 0, 8)
    same = divided(stall((Span(0, 10 * MS, 1, HERE, FUTEX, "S"), follows)))
    assert same == {"python-cpu": 25 * MS, "gil-wait": 25 * MS}
    elsewhere = stack(80, "Server.other")
    elsewhere = tuple(frame for frame in elsewhere if frame.function != "Server.handle")
    apart = divided(stall((Span(0, 10 * MS, 1, elsewhere, path("read", "/a"), "S"), follows)))
    assert apart["blocking-syscall"] == 10 * MS


def test_a_head_that_was_caught_in_a_call_of_its_own_is_that_call() -> None:
    head = Span(0, 10 * MS, 1, HERE, path("openat", "/a"), "S")
    found = divided(stall((head, Span(10 * MS, LENGTH, 10, HERE, FUTEX, "S", 40 * MS, 0, 8))))
    assert found == {"blocking-syscall": 10 * MS, "python-cpu": 40 * MS}


def test_a_tail_goes_on_as_it_was_unless_a_sample_was_overdue() -> None:
    until_45 = sampled(45 * MS, path("read", "/a"), HERE)
    assert divided(stall(until_45)) == {"blocking-syscall": LENGTH}
    until_20 = sampled(20 * MS, path("read", "/a"), HERE)
    last = until_20[-1].to_ns
    assert divided(stall(until_20)) == {"blocking-syscall": last + THRESHOLD, "unexplained": LENGTH - last - THRESHOLD}


def test_the_way_out_of_a_lock_is_the_locks() -> None:
    waiting = (Span(0, 5 * MS, 1, HERE, FUTEX, "S"), Span(5 * MS, 45 * MS, 16, HERE, FUTEX, "S", 0, 0, 0))
    woken = Span(45 * MS, LENGTH, 2, HERE, None, "R", 0, 0, 0)
    assert divided(stall((*waiting, woken))) == {"lock-wait": LENGTH}


def test_a_runnable_thread_that_did_not_run_waited_for_a_cpu() -> None:
    lagging = (Span(0, 10 * MS, 1, HERE, None, "R"), Span(10 * MS, LENGTH, 6, HERE, None, "R", 31 * MS, MS, 4))
    found = divided(stall(lagging))
    assert set(found) == {"python-cpu", "descheduled"}
    asleep = divided(stall((*lagging[:1], Span(10 * MS, LENGTH, 6, HERE, None, "S", MS, 0, 4))))
    assert asleep["unexplained"] > 0.9 * 40 * MS


def test_a_thread_that_wants_the_gil_waits_for_it_even_where_no_call_was_seen() -> None:
    asking = (Span(0, 5 * MS, 1, HERE, FUTEX, "S"), Span(5 * MS, 25 * MS, 2, HERE, FUTEX, "S", 0, 0, 15, 13 * MS))
    seen_awake = Span(25 * MS, LENGTH, 2, HERE, None, "R", MS, 0, 7, 13 * MS)
    found = divided(stall((*asking, seen_awake)))
    assert found == {"gil-wait": LENGTH - MS, "python-cpu": MS}


def test_the_causes_are_in_one_order() -> None:
    found = divided(stall((), pauses=(GcPause(0, MS, 2),), calls=(TimedCall(2 * MS, MS, path("read", "/a")),)))
    assert list(found) == ["blocking-syscall", "gc", "unexplained"]


times = st.integers(-20 * MS, 80 * MS)
counters = st.none() | st.integers(0, 100 * MS)
calls = st.sampled_from([None, FUTEX, SLEEP, path("read", "/a"), Call("gil")])
spans = st.builds(
    Span,
    times,
    times,
    st.integers(0, 40),
    st.sampled_from([(), HERE, stack(31, "Server.other")]),
    calls,
    st.sampled_from(["", "R", "S", "D", "T"]),
    counters,
    counters,
    st.none() | st.integers(0, 1000),
    st.integers(0, 100 * MS),
)
pauses = st.builds(GcPause, times, st.integers(0, 60 * MS), st.integers(0, 2))
timed = st.builds(TimedCall, times, st.integers(0, 60 * MS), calls.filter(lambda call: call is not None))


@given(
    st.integers(0, 60 * MS),
    st.lists(spans, max_size=8),
    st.lists(pauses, max_size=4),
    st.lists(timed, max_size=4),
)
def test_any_evidence_sums_exactly(
    duration_ns: int, some: list[Span], collected: list[GcPause], called: list[TimedCall]
) -> None:
    one = Stall(1, 0, duration_ns, spans=tuple(some), pauses=tuple(collected), calls=tuple(called))
    parts = divide(one, THRESHOLD)
    assert sum(part.ns for part in parts) == duration_ns
    assert all(part.ns > 0 and part.cause in CAUSES for part in parts)
