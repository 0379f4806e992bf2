"""A run corrected for the time that others took from it."""

from __future__ import annotations

from stallscope.agent.layout import bucket_of
from stallscope.gate.runs import run_of
from stallscope.recording.nouns import (
    Call,
    CoarseHistogram,
    Frame,
    Handler,
    HandlerCounts,
    HandlerTime,
    Loop,
    Stall,
    TimedCall,
)
from tests.analysis.recordings import FUTEX, HANDLER, MS, S, blocked, loop, path, sampled, stack
from tests.gate.runs import computing, made, relative, run

WHERE = stack(20)
READ = path("read", "/data/x")


def waiting_for_a_cpu(ns: int) -> Stall:
    return Stall(1, 0, ns, spans=sampled(ns, None, WHERE, state="R", cpu=0.05, delay=0.94))


def test_time_without_a_cpu_is_not_the_programs() -> None:
    found = run([waiting_for_a_cpu(50 * MS)] * 20 + [computing(30 * MS)])
    assert (found.facts.stalls, found.uncorrected) == (1, 20)
    assert abs(found.longest_ns[0] - 30 * MS) < 2 * MS


def test_a_call_and_computing_are() -> None:
    assert run([blocked(30 * MS, READ, WHERE), computing(20 * MS)]).facts.stalls == 2


def test_computing_that_one_sample_alone_speaks_for_is_not_counted() -> None:
    (first, _) = sampled(12 * MS, None, WHERE, state="R")
    lone = Stall(1, 0, 12 * MS, spans=(first._replace(to_ns=11 * MS, late_ns=11 * MS),))
    assert run([lone]).facts.stalls == 0
    caught = Stall(1, 0, 12 * MS, spans=(first._replace(to_ns=11 * MS, call=READ, state="D"),))
    assert run([caught]).facts.stalls == 1


def test_a_wait_for_the_gil_counts_unless_the_machine_is_loaded() -> None:
    gil = TimedCall(0, 25 * MS, Call("gil"), WHERE)
    quiet = Stall(1, 0, 30 * MS, spans=sampled(30 * MS, None, WHERE, state="R", cpu=1.0), calls=(gil,))
    assert run([quiet]).facts.stalls == 1
    waiting = sampled(30 * MS, None, WHERE, state="R", cpu=0.0, delay=1.0)
    assert run([quiet._replace(spans=waiting)]).facts.stalls == 0


def test_a_wait_until_a_new_thread_runs_does_not_count_and_one_for_its_work_does() -> None:
    threading = "/usr/lib/python3.11/threading.py"
    waiting = (Frame(threading, 327, "Condition.wait"), Frame(threading, 629, "Event.wait"))
    of = {name: stack(20, "Server.load", *waiting, *more) for name, more in
          {"start": [Frame(threading, 969, "Thread.start")], "work": []}.items()}  # fmt: skip
    stalls = {name: [Stall(1, 0, 50 * MS, spans=sampled(50 * MS, FUTEX, where))] for name, where in of.items()}
    starts, works = (run(stalls[name]) for name in ("start", "work"))
    assert (starts.facts.stalls, starts.uncorrected, starts.sites) == (0, 1, {})
    assert (works.facts.stalls, len(works.sites)) == (1, 1)


def test_stalls_without_details_count_as_the_others_do() -> None:
    durations = [50 * MS] * 100 + [50_000] * 1000
    kept = [waiting_for_a_cpu(50 * MS)] * 5 + [computing(50 * MS)] * 5
    assert run(kept, loops=[loop(durations)], suppressed=90).facts.stalls == 50


def test_a_source_without_details_counts_what_its_histogram_says() -> None:
    foreign = Loop(1, 1, 1, 1, "function", "", 0, 60 * S, {}, None, CoarseHistogram((0, 16 * MS, 32 * MS), (900, 100)))
    found = run(loops=[foreign], source="funclatency")
    assert (found.facts.stalls, found.facts.iterations) == (100, 1000)


def test_a_higher_threshold_counts_less() -> None:
    stalls = [computing(15 * MS), computing(60 * MS)]
    assert run(stalls, threshold_ns=50 * MS).facts.stalls == 1


def test_what_never_ended_is_known_as_such() -> None:
    assert run([computing(3 * S)._replace(finished=False)]).hung_ns > 2.9 * S
    assert run([computing(3 * S)]).hung_ns == 0


def test_p99_is_corrected() -> None:
    assert (run([waiting_for_a_cpu(50 * MS)] * 300).p99_ns or 0) < 5 * MS
    assert (run([computing(50 * MS)] * 300).p99_ns or 0) > 40 * MS
    assert run(loops=[loop([])]).p99_ns is None


def test_a_handlers_longest_calls_are_corrected_where_they_can_be() -> None:
    part = (HandlerTime(HANDLER, 1, 50 * MS),)
    counted = HandlerCounts(1, HANDLER, {bucket_of(50 * MS): 2, bucket_of(MS): 500})
    stalls = (waiting_for_a_cpu(50 * MS)._replace(handlers=part), computing(50 * MS)._replace(handlers=part))
    recorded = made(stalls)._replace(handlers=(counted,))
    longest = run_of(recorded, 10 * MS, relative).handlers["Server.handle"]
    assert abs(longest[0] - 50 * MS) < 2 * MS
    assert longest[1] < 4 * MS


def test_handlers_are_known_by_their_median_where_it_matters() -> None:
    rare = HandlerCounts(1, Handler("rare"), {bucket_of(90 * MS): 100})
    quick = HandlerCounts(1, Handler("quick"), {bucket_of(1000): 300})
    busy = HandlerCounts(1, Handler("busy"), {bucket_of(MS): 400, bucket_of(9 * MS): 100})
    facts = run_of(made()._replace(handlers=(rare, quick, busy)), 10 * MS, relative).facts
    assert list(facts.medians_ns) == ["busy"]
    assert abs(facts.medians_ns["busy"] - MS) < MS // 30
    assert facts.work == 900


def test_a_run_knows_itself_again_and_no_other() -> None:
    recorded = made([computing(50 * MS)])
    same = recorded._replace(path="copy.stall")
    assert run_of(recorded, 10 * MS, relative).facts.id == run_of(same, 20 * MS, relative).facts.id
    assert run().facts.id != run().facts.id
