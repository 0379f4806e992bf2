"""Calls that were timed one by one, or counted and summed: better evidence than samples, wherever both are."""

from __future__ import annotations

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Culprit, Removal
from stallscope.recording.nouns import Call, Handler, HandlerCounts, Resource, Span, Stall, TimedCall
from tests.analysis.recordings import FUTEX, HANDLER, MS, SERVER, S, path, recording, stack

READ = path("read", "/data/a.bin")
LOOKUP = path("newfstatat", "/data/a.bin")


def culprits(*stalls: Stall) -> tuple[Culprit, ...]:
    return examine(recording(stalls)).culprits


def timed(start_ns: int, duration_ns: int, call: Call, line: int = 20, count: int = 1) -> TimedCall:
    return TimedCall(start_ns, duration_ns, call, stack(line), count)


def test_a_timed_call_outvotes_the_samples_of_the_same_time() -> None:
    spans = (Span(0, 50 * MS, 1, stack(99, "elsewhere"), path("write", "/b"), "S"),)
    (read, rest) = culprits(Stall(1, 0, 50 * MS, current=HANDLER, spans=spans, calls=(timed(0, 45 * MS, READ),)))
    assert (read.syscall, read.ns, read.location and read.location.line) == ("read", 45 * MS, 20)
    assert (rest.syscall, rest.ns) == ("write", 5 * MS)
    assert (read.low_confidence, rest.low_confidence) == (False, True)
    assert (read.calls, rest.calls) == (1, None)


def test_a_moment_that_was_timed_does_not_make_the_samples_sure() -> None:
    spans = (Span(0, 50 * MS, 1, stack(20), READ, "S"),)
    (one,) = culprits(Stall(1, 0, 50 * MS, current=HANDLER, spans=spans, calls=(timed(0, 2 * MS, READ),)))
    assert (one.ns, one.low_confidence, one.calls) == (50 * MS, True, None)
    assert one.advice is not None
    assert "Low confidence" in one.advice.summary


def test_many_small_calls_are_counted_and_told_so() -> None:
    stalls = [
        Stall(1, k * S, 30 * MS, current=HANDLER, calls=(timed(k * S, 30 * MS, LOOKUP, 20, 60),)) for k in range(3)
    ]
    (one,) = culprits(*stalls)
    assert (one.calls, one.calls_per_stall, one.stalls, one.syscall) == (180, 60, 3, "newfstatat")
    assert one.advice is not None
    assert one.advice.remedy == "open"
    assert "many small calls" in [other.remedy for other in one.advice.also]


def test_a_long_call_among_many_short_ones_is_no_many_small_calls() -> None:
    calls = (timed(0, 28 * MS, LOOKUP), timed(28 * MS, MS, LOOKUP, count=60))
    (one,) = culprits(Stall(1, 0, 29 * MS, current=HANDLER, calls=calls))
    assert (one.calls, one.calls_per_stall) == (61, 1)
    assert one.advice is not None
    assert "many small calls" not in [other.remedy for other in one.advice.also]


def test_one_long_call_in_each_stall_is_not_many_small_ones() -> None:
    (one,) = culprits(Stall(1, 0, 30 * MS, current=HANDLER, calls=(timed(0, 30 * MS, LOOKUP),)))
    assert one.advice is not None
    assert "many small calls" not in [other.remedy for other in one.advice.also]


def test_what_if_takes_the_measured_time_and_no_more() -> None:
    spans = (Span(0, 50 * MS, 9, stack(40, "compute"), FUTEX, "S", 20 * MS, 0, 0),)
    stall = Stall(1, 0, 50 * MS, current=HANDLER, spans=spans, calls=(timed(10 * MS, 30 * MS, READ),))
    found = examine(recording([stall]), what_if=Removal((1,)))
    assert found.prediction is not None
    assert found.prediction.removed_ns == 30 * MS
    assert found.prediction.totals.stall_ns == 20 * MS


def test_both_ends_of_a_call_that_waits_for_a_peer_are_one_culprit_with_its_samples() -> None:
    """A stall that the pulse timed, and one that only was sampled (another worker, without a pulse)."""
    peer = Call("recvfrom", Resource("peer", "10.0.0.5:5432"))
    sampled = Stall(1, S, 40 * MS, current=HANDLER, spans=(Span(S, S + 40 * MS, 9, stack(20), peer, "S", 0, 0, 0),))
    (one,) = culprits(Stall(1, 0, 60 * MS, current=HANDLER, calls=(timed(0, 60 * MS, peer),)), sampled)
    assert (one.stalls, one.ns, one.low_confidence) == (2, 100 * MS, False)


def test_victims_suffer_from_what_was_measured() -> None:
    counted = (HandlerCounts(1, HANDLER, {200: 10}), HandlerCounts(1, Handler("Server.meta", SERVER, 60), {200: 1000}))
    stalls = [Stall(1, k * S, 60 * MS, current=HANDLER, calls=(timed(k * S, 60 * MS, READ),)) for k in range(10)]
    first, second = examine(recording(stalls, handlers=counted)).delays
    assert (first.handler, first.own_ns) == (HANDLER, 600 * MS)
    assert second.suffered_ns == first.inflicted_ns == pytest.approx(1000 * 10 * (60 * MS) ** 2 / (2 * 60 * S))


def test_the_resource_is_what_was_slow_and_not_all_that_was_touched() -> None:
    def opened(start_ns: int, name: str, ns: int) -> TimedCall:
        return timed(start_ns, ns, path("openat", name))

    calls = (opened(0, "/x/archive/1.bin", 25 * MS), opened(25 * MS, "/x/cold/2.bin", MS // 100))
    more = (opened(S, "/x/archive/3.bin", 24 * MS), opened(S + 24 * MS, "/x/warm/1.bin", MS // 100))
    stalls = [Stall(1, at, 26 * MS, current=HANDLER, calls=some) for at, some in ((0, calls), (S, more))]
    one, *_ = culprits(*stalls)
    assert one.resource == "/x/archive/*.bin"
    assert len(one.resources) == 4
