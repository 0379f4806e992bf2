"""The rules, as a table: what is worse, what is not, and what could not be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest

from stallscope.gate.policy import Allowance, Budgets, Policy
from stallscope.gate.runs import Run
from stallscope.recording.nouns import Fidelity
from tests.analysis.recordings import MS, S, blocked, loop, stack
from tests.gate.runs import DAY, NO_LIMITS, OLD, OPEN, computing, result, run, site, verdict

SITES = (site(OLD),)


def stalled(*durations_ms: int, **changes: object) -> Run:
    """A minute with these stalls, and ten thousand fast iterations."""
    return run([computing(ms * MS) for ms in durations_ms], SITES, **changes)  # type: ignore[arg-type]


def limited(**limits: object) -> Policy:
    return Policy(Budgets(max_stall_ns=None)._replace(**limits))  # type: ignore[arg-type]


def facts(one: Run, **changes: object) -> Run:
    return replace(one, facts=replace(one.facts, **changes))  # type: ignore[arg-type]


def test_nothing_to_compare_with_passes_and_says_so() -> None:
    found = verdict([stalled(20)])
    assert (found.outcome, result(found, "new culprits").outcome) == ("pass", "skipped")


def test_a_new_call_fails_before_all_else() -> None:
    found = verdict([run(sites=[*SITES, site(OPEN)])], [stalled()])
    assert (found.outcome, found.results[0].rule, found.results[0].outcome) == ("fail", "new culprits", "fail")


def test_a_baseline_that_did_little_work_says_little() -> None:
    busy, idle = facts(run(sites=[*SITES, site(OPEN, hits=5)]), work=10_000), facts(stalled(), work=1_900)
    found = verdict([busy], [idle])
    assert (found.outcome, found.new.culprits, len(found.new.unsure)) == ("warn", (), 1)
    assert verdict([busy], [facts(stalled(), work=2_100)]).failed
    assert verdict([busy], [idle, facts(stalled(), work=1_000)]).failed


def test_of_two_short_sessions_the_iterations_tell_how_much_they_did() -> None:
    """Handler calls are drawn: of the same dozen of them one session counted 2 and the other 18."""
    now, before = facts(run(sites=[*SITES, site(OPEN, hits=6)]), work=18), facts(stalled(), work=2)
    assert verdict([now], [before]).failed


@pytest.mark.parametrize(
    ("hits", "runs", "earlier", "outcome"),
    [
        (2, 1, 1, "warn"),  # half of all such pairs had it the other way round
        (6, 1, 1, "warn"),
        (7, 1, 1, "fail"),
        (2, 1, 5, "warn"),
        (3, 1, 5, "fail"),
    ],
)
def test_calls_that_were_drawn_must_be_beyond_chance(hits: int, runs: int, earlier: int, outcome: str) -> None:
    pulse = Fidelity("pulse")
    now = [run(sites=[*SITES, site(OPEN, hits=hits)], fidelity=pulse) for _ in range(runs)]
    found = verdict(now, [run(sites=SITES, fidelity=pulse) for _ in range(earlier)])
    assert result(found, "new culprits").outcome == outcome


@pytest.mark.parametrize(
    ("present", "of", "outcome"), [(1, 5, "warn"), (3, 5, "warn"), (4, 5, "fail"), (2, 3, "warn"), (3, 3, "fail")]
)
def test_of_several_runs_most_must_have_it(present: int, of: int, outcome: str) -> None:
    sites = [[*SITES, site(OPEN, hits=50)]] * present + [list(SITES)] * (of - present)
    found = verdict([run(sites=one) for one in sites], [run(sites=SITES) for _ in range(of)])
    assert result(found, "new culprits").outcome == outcome


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        ("app/server.py", True),
        ("app/*", True),
        ("app/server.py:Server.load", True),
        ("app/server.py:*:open", True),
        ("app/server.py:Server.load:open:path", True),
        ("app/server.py:Server.load:open:pipe", False),
        ("app/server.py:load", False),
        ("server.py", False),
        ("a:b:c:d:e", False),
    ],
)
def test_a_known_call_is_accepted_by_its_pattern(pattern: str, accepted: bool) -> None:
    policy = NO_LIMITS._replace(allowances=(Allowance(pattern, "read once at the start"),))
    found = verdict([run(sites=[*SITES, site(OPEN)])], [stalled()], policy)
    assert (len(found.new.known), len(found.new.culprits)) == ((1, 0) if accepted else (0, 1))


def test_an_allowance_ends_with_its_last_day() -> None:
    for last, fails in ((DAY, False), (DAY - timedelta(days=1), True)):
        policy = NO_LIMITS._replace(allowances=(Allowance("app/*", "until the move", last),))
        found = verdict([run(sites=[*SITES, site(OPEN)])], [stalled()], policy)
        assert found.failed is fails
    assert found.new.culprits[0].expired == Allowance("app/*", "until the move", date(2026, 5, 31))


def test_of_two_allowances_the_one_that_holds_counts() -> None:
    old, new = Allowance("app/*", "x", date(2020, 1, 1)), Allowance("app/server.py", "y")
    policy = NO_LIMITS._replace(allowances=(old, new))
    assert verdict([run(sites=[*SITES, site(OPEN)])], [stalled()], policy).new.known[0][1] == new


@pytest.mark.parametrize(
    ("limits", "durations", "fails"),
    [
        ({"max_stall_ns": 100 * MS}, [150], False),  # one is forgiven
        ({"max_stall_ns": 100 * MS}, [150, 140], True),
        ({"max_stall_ns": 100 * MS}, [150, 90], False),
        ({"stall_share": 0.01}, [200, 200], False),
        ({"stall_share": 0.01}, [200, 200, 300], True),
        ({"stalls_per_minute": 2}, [20, 20], False),
        ({"stalls_per_minute": 2}, [20, 20, 20], True),
        ({"p99_ns": 5 * MS}, [20] * 20, False),
        ({"p99_ns": 5 * MS}, [20] * 200, True),
    ],
)
def test_budgets(limits: dict[str, object], durations: Sequence[int], fails: bool) -> None:
    found = verdict([stalled(*durations)], policy=limited(**limits))
    assert found.failed is fails
    assert found.results[1].figures[0].limit == next(iter(limits.values()))


def test_of_several_runs_one_stall_each_is_forgiven() -> None:
    policy = limited(max_stall_ns=100 * MS)
    assert not verdict([stalled(150, 150), stalled(20)], policy=policy).failed
    assert verdict([stalled(150, 150), stalled(150)], policy=policy).failed


def test_a_hang_is_never_forgiven() -> None:
    hung = run([computing(3 * S)._replace(finished=False)])
    assert verdict([hung], policy=limited(max_stall_ns=100 * MS)).failed


def test_a_handlers_budget() -> None:
    one = replace(stalled(), handlers={"Server.search": (90 * MS, 30 * MS, MS)})
    assert verdict([one], policy=limited(handler_max_ns={"Server.search": 20 * MS})).failed
    assert not verdict([one], policy=limited(handler_max_ns={"Server.search": 40 * MS})).failed
    found = verdict([one], policy=limited(handler_max_ns={"Server.serach": 20 * MS}))
    assert found.outcome == "inconclusive"
    assert "not tested" in result(found, "longest call of Server.serach").why


def test_more_stalls_fail_and_as_many_do_not() -> None:
    assert verdict([stalled(*[20] * 12)], [stalled()]).failed
    assert not verdict([stalled(*[20] * 12)], [stalled(*[20] * 10)]).failed
    assert result(verdict([stalled(*[20] * 40)], [stalled(*[20] * 10)]), "stall rate").outcome == "fail"


def test_more_stalls_for_more_work_do_not_fail() -> None:
    before, now = stalled(*[20] * 10), stalled(*[20] * 40)
    assert not verdict([facts(now, work=80_000)], [facts(before, work=20_000)]).failed


def test_more_stalls_in_more_time_do_not_fail() -> None:
    before, now = stalled(*[20] * 10), stalled(*[20] * 40)
    assert not verdict([facts(now, wall_ns=240 * S)], [before]).failed


@pytest.mark.parametrize(
    ("stalls", "ms", "work", "outcome"),
    [
        (3, 20, 10_000, "warn"),
        (4, 20, 10_000, "fail"),
        (4, 12, 10_000, "warn"),  # a machine a fifth slower: it may have taken 9.6 ms before
        (4, 20, 5_000, "warn"),
        (3, 20, 20_000, "fail"),
    ],
)
def test_a_new_place_that_computes_too_long(stalls: int, ms: int, work: int, outcome: str) -> None:
    found = verdict([stalled(*[ms] * stalls)], [facts(stalled(), work=work)])
    assert result(found, "new culprits").outcome == outcome
    assert result(verdict([stalled(*[ms] * 7)], [stalled(20)]), "new culprits").outcome == "pass"
    slower = {"a": 1400}
    drifted = facts(stalled(*[17] * 8), medians_ns=slower)
    assert verdict([drifted], [facts(stalled(), medians_ns={"a": 1000})]).new.culprits == ()
    assert len(verdict([drifted], [facts(stalled(), medians_ns=slower)]).new.culprits) == 1


@pytest.mark.parametrize(("stalls", "outcome"), [(3, "warn"), (4, "fail")])
def test_a_new_call_that_stalls_needs_less_than_one_that_is_fast(stalls: int, outcome: str) -> None:
    pulse = Fidelity("pulse")
    slow = [blocked(20 * MS, OPEN, stack(20, "Server.load"))] * stalls
    now = run(slow, [*SITES, site(OPEN, hits=stalls)], fidelity=pulse)
    assert result(verdict([now], [run(sites=SITES, fidelity=pulse)]), "new culprits").outcome == outcome


COUNTED = frozenset({"openat", "write"})


@pytest.mark.parametrize(
    ("theirs", "ours", "untold"),
    [
        (COUNTED, COUNTED, 0),
        (None, None, 0),  # of two that were made before recorders were noted, none is known to be the newer one
        (COUNTED - {"openat"}, COUNTED, 1),
        (None, COUNTED, 1),
        (COUNTED, None, 0),
    ],
)
def test_a_call_that_only_the_newer_recorder_counts_does_not_fail(
    theirs: frozenset[str] | None, ours: frozenset[str] | None, untold: int
) -> None:
    now = run(sites=[*SITES, site(OPEN)], recorder="2.0" if ours else "", counted_calls=ours)
    old = run(sites=SITES, recorder="1.0" if theirs else "", counted_calls=theirs)
    found = verdict([now], [old])
    assert (len(found.new.untold), len(found.new.culprits)) == (untold, 1 - untold)
    assert found.outcome == ("inconclusive" if untold else "fail")
    assert any("baseline update" in note for note in found.notes) is (theirs != ours)
    renewed = verdict([now], [old, run(sites=SITES, recorder="2.0", counted_calls=COUNTED)])
    assert (renewed.new.untold, len(renewed.new.culprits)) == ((), 1)


def test_recordings_of_one_recorder_by_other_ways_are_not_told_as_of_another() -> None:
    heard = run(sites=SITES, recorder="1.0", counted_calls=frozenset({"write"}))
    timed = run(sites=[*SITES, site(OPEN)], recorder="1.0", counted_calls=COUNTED, fidelity=Fidelity("pulse"))
    found = verdict([timed], [heard])
    assert (len(found.new.untold), found.new.culprits) == (1, ())
    assert not any("another stallscope" in note for note in found.notes)


def test_where_the_kernel_does_not_tell_of_waits_the_rate_must_double() -> None:
    before, now = stalled(*[20] * 100), stalled(*[20] * 180)
    assert verdict([now], [before]).failed
    unknown = replace(now, knows_delay=False)
    found = verdict([unknown], [before])
    assert not found.failed
    assert any("waited for a CPU" in one.what for one in found.missing)


def test_longer_stalls_fail_with_three_runs_a_side() -> None:
    before, now = [stalled(*[20] * 20)] * 3, [stalled(*[90] * 20)] * 3
    assert result(verdict(now, before), "stall time").outcome == "fail"
    assert result(verdict(before, before), "stall time").outcome == "pass"
    assert not verdict(now[:2], before[:2]).failed


def test_too_little_data_is_said_with_what_it_takes() -> None:
    short = run(sites=SITES, loops=[loop([50_000] * 500, wall_ns=S)])
    found = verdict([short], [short])
    assert found.outcome == "inconclusive"
    figures = {one.name: one.value for one in result(found, "stall rate").figures}
    assert (figures["which takes stalls"], figures["of all iterations"]) == (8, 8 / 500)
    few = run([computing(20 * MS)] * 3, SITES, loops=[loop([50_000] * 500 + [20 * MS] * 3, wall_ns=S)])
    ratio = {one.name: one.value for one in result(verdict([few], [few]), "stall rate").figures}
    assert ratio["smallest ratio it could have shown"] > 3


def test_no_iteration_at_all_is_inconclusive() -> None:
    assert verdict([run(loops=[loop([])])], [stalled()]).outcome == "inconclusive"


def test_more_cpu_for_the_same_work_warns_and_fails_only_with_five_runs() -> None:
    before = [facts(stalled(), cpu_ns=S + n) for n in range(5)]
    now = [facts(stalled(), cpu_ns=round(1.4 * S) + n) for n in range(5)]
    assert verdict(now[:1], before[:1]).outcome == "pass"
    assert result(verdict(now[:2], before[:2]), "CPU for each unit of work").outcome == "skipped"
    assert verdict(now[:3], before[:3]).outcome == "warn"
    assert verdict(now, before).outcome == "fail"
    assert verdict(before, before).outcome == "pass"


def test_a_handler_that_grew_beside_the_others() -> None:
    usual = {"a": 100, "b": 200, "c": 300, "d": 400}
    drifted = {name: round(ns * 1.4) for name, ns in usual.items()}
    grown = {**drifted, "b": round(200 * 1.4 * 1.3)}

    def runs(medians: dict[str, int]) -> list[Run]:
        return [facts(stalled(), medians_ns={name: ns * 1000 + n for name, ns in medians.items()}) for n in range(5)]

    rule = "slowest handler beside the others"
    assert result(verdict(runs(drifted), runs(usual)), rule).outcome == "pass"
    assert result(verdict(runs(grown)[:1], runs(usual)[:1]), rule).outcome == "skipped"
    found = result(verdict(runs(grown)[:3], runs(usual)[:3]), rule)
    assert (found.outcome, found.why) == ("warn", "b")
    assert result(verdict(runs(grown), runs(usual)), rule).outcome == "fail"


def test_a_baseline_with_another_threshold_is_compared_by_its_sites_alone() -> None:
    other = facts(stalled(*[20] * 40), threshold_ns=5 * MS)
    found = verdict([run(sites=[*SITES, site(OPEN)])], [other])
    assert len(found.new.culprits) == 1
    assert result(found, "stall rate").outcome == "inconclusive"
    assert any("another threshold" in note for note in found.notes)


def test_what_was_recorded_in_other_ways_is_said() -> None:
    pulse = run(sites=SITES, fidelity=Fidelity("pulse"))
    assert any("different ways (agent, pulse)" in note for note in verdict([pulse], [stalled()]).notes)
    assert any(one.what == "blocking calls that were fast" for one in verdict([run()], [run()]).missing)


def test_a_run_of_the_baseline_itself_is_said() -> None:
    same = stalled()
    assert any("itself a run of the baseline" in note for note in verdict([same], [same]).notes)
