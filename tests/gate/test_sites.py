"""What makes a call site the same one, and what counts as a hit."""

from __future__ import annotations

import pytest

from stallscope.gate.families import family
from stallscope.gate.sites import Place
from stallscope.recording.nouns import Call, Fidelity, Frame, Resource, Stall, TimedCall
from tests.analysis.recordings import FUTEX, LOOP_FRAMES, MS, blocked, path, sampled, stack
from tests.gate.runs import OLD, OPEN, run, site, verdict


def test_a_place_is_file_function_call_and_kind() -> None:
    assert set(run(sites=[site(OPEN)]).sites) == {Place("app/server.py", "Server.load", "open", "path")}


def test_an_edit_that_moves_every_line_makes_nothing_new() -> None:
    old = run([blocked(30 * MS, OPEN, stack(20, "Server.load"))], [site(OPEN, 20), site(OLD, 50, function="log")])
    moved = run([blocked(30 * MS, OPEN, stack(95, "Server.load"))], [site(OLD, 125, function="log"), site(OPEN, 95)])
    assert verdict([moved], [old]).new.culprits == ()


def test_another_file_of_the_same_kind_makes_nothing_new() -> None:
    assert verdict([run(sites=[site(path("openat", "/tmp/b"))])], [run(sites=[site(OPEN)])]).new.culprits == ()


@pytest.mark.parametrize(
    "changed",
    [
        site(OPEN, function="Server.save"),
        site(path("stat", "/etc/shop.conf")),
        site(Call("openat", Resource("pipe", "/etc/shop.conf"))),
        site(OPEN)._replace(stack=(Frame("/srv/app/other.py", 20, "Server.load"), *LOOP_FRAMES)),
    ],
)
def test_another_function_call_kind_or_file_is_new(changed: object) -> None:
    (new,) = verdict([run(sites=[changed])], [run(sites=[site(OPEN)])]).new.culprits  # type: ignore[list-item]
    assert new.site.hits == 5


def test_a_call_that_was_seen_once_may_be_chance() -> None:
    assert verdict([run(sites=[site(OPEN, hits=1)])], [run(sites=[site(OLD)])]).new.culprits == ()
    two = [run(sites=[site(OPEN, hits=1)]), run(sites=[site(OPEN, hits=1)])]
    assert len(verdict(two, [run(sites=[site(OLD)])]).new.culprits) == 1


def test_a_call_is_seen_in_stalls_too() -> None:
    stalls = [blocked(30 * MS, OPEN, stack(20, "Server.load"))] * 7
    stalls += [blocked(50 * MS, OPEN, stack(21, "Server.load"))]
    (new,) = verdict([run(stalls)], [run()]).new.culprits
    assert (new.site.hits, new.site.longest_ns, new.site.line, new.site.in_stalls) == (8, 50 * MS, 21, True)
    assert new.advice is not None
    assert "load" in new.advice.code


def test_what_the_pulse_counted_is_not_counted_again_in_stalls() -> None:
    stalls = [blocked(30 * MS, OPEN, stack(20, "Server.load"))]
    (seen,) = run(stalls, [site(OPEN, hits=7, total_ns=40 * MS)]).sites.values()
    assert (seen.hits, seen.total_ns, seen.longest_ns, seen.in_stalls) == (7, 40 * MS, 30 * MS, True)


def test_a_moment_of_a_call_inside_a_stall_is_no_hit() -> None:
    where = stack(20, "Server.load")
    first = sampled(30 * MS, None, where, state="R", cpu=1.0)
    brief = first[0]._replace(call=OPEN, state="D", cpu_ns=None)
    (computes,) = run([Stall(1, 0, 30 * MS, spans=(brief, first[1]))] * 2).sites.values()
    assert computes.computes


def test_a_lock_is_a_call_site() -> None:
    where = stack(20, "Server.load", Frame("/usr/lib/python3.11/threading.py", 320, "Condition.wait"))
    spans = sampled(50 * MS, FUTEX, where, switches_per_sample=0.0)
    (place,) = run([Stall(1, 0, 50 * MS, spans=spans)]).sites
    assert place == Place("app/server.py", "Server.load", "lock", "lock")


def test_what_the_loop_does_by_itself_is_no_site() -> None:
    closing = (Frame("/usr/lib/python3.11/socket.py", 497, "socket.close"), *LOOP_FRAMES[:2])
    own = site(Call("close"))._replace(stack=closing)
    ending = own._replace(stack=LOOP_FRAMES[1:])  # the user's frame below is the one that runs the loop
    mutex = site(Call("pthread_mutex_lock", Resource("lock", "")))
    assert run(sites=[own, ending, mutex]).sites == {}


def test_with_the_pulse_stalls_add_no_sites() -> None:
    where = stack(20, "Server.load")
    sent = TimedCall(0, 29 * MS, path("sendto", "10.0.0.5:80"))
    stalled = blocked(30 * MS, OPEN, where)._replace(calls=(sent,))
    assert [place.call for place in run([stalled], fidelity=Fidelity("agent")).sites] == ["send"]
    assert run([stalled], fidelity=Fidelity("pulse")).sites == {}
    (seen,) = run([stalled], [site(sent.call)._replace(stack=where)], fidelity=Fidelity("pulse")).sites.values()
    assert (seen.place.call, seen.in_stalls, seen.longest_ns) == ("send", True, 29 * MS)


def test_a_baseline_that_saw_stalls_alone_says_nothing_of_fast_calls() -> None:
    found = verdict([run(sites=[site(OPEN)])], [run()])
    assert found.new.culprits == ()
    assert any("only inside stalls" in note for note in found.notes)


def test_functions_of_an_older_python_are_compared_by_their_own_names() -> None:
    old = run(sites=[site(OPEN, function="load")], python="CPython 3.10.13")
    found = verdict([run(sites=[site(OPEN, function="Server.load")])], [old])
    assert found.new.culprits == ()
    assert any("own names" in note for note in found.notes)
    same = run(sites=[site(OPEN, function="load")])
    assert len(verdict([run(sites=[site(OPEN, function="Server.load")])], [same]).new.culprits) == 1


@pytest.mark.parametrize(
    ("call", "name"),
    [("openat", "open"), ("open", "open"), ("newfstatat", "stat"), ("clock_nanosleep", "sleep"), ("futex", "lock"),
     ("sem_clockwait", "lock"), ("getaddrinfo", "resolve"), ("ioctl", "ioctl")],
)  # fmt: skip
def test_calls_that_do_the_same_have_one_name(call: str, name: str) -> None:
    assert family(call) == name
