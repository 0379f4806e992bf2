"""Situations that tools which show only a histogram, a stack or a call get wrong: each with the expected finding."""

from __future__ import annotations

import pytest

from stallscope.agent.layout import bucket_of
from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Culprit, Removal
from stallscope.recording.nouns import Frame, Handler, HandlerCounts, HandlerTime, Span, Stall
from tests.analysis.recordings import FUTEX, HANDLER, LOOP_FRAMES, MS, SERVER, S, blocked, loop, path, recording, stack

UPLOAD = Handler("Server.upload", SERVER, 40)
LIBRARY = Frame("/srv/venv/lib/python3.11/site-packages/pkg/io.py", 5, "load")


def culprits(*stalls: Stall) -> tuple[Culprit, ...]:
    return examine(recording(stalls)).culprits


def uploading(line: int, *inner: Frame) -> tuple[Frame, ...]:
    return (*inner, Frame(SERVER, line, "Server.upload"), *LOOP_FRAMES)


def test_a_crowded_iteration_is_a_pile_up_and_no_handler_is_blamed_alone() -> None:
    handlers = tuple(HandlerTime(Handler(f"task{k}", SERVER, k), 1, MS // 2) for k in range(100))
    spans = tuple(
        Span(k * MS // 2, (k + 1) * MS // 2, 1, (Frame(SERVER, k, f"task{k}"), *LOOP_FRAMES), FUTEX, "S", MS // 2, 0, 1)
        for k in range(100)
    )
    (one,) = culprits(Stall(1, 0, 50 * MS, handlers=handlers, spans=spans))
    assert (one.kind, len(one.handlers), one.ns) == ("pile-up", 100, 50 * MS)
    assert one.advice is not None
    assert one.advice.remedy == "pile-up"
    assert one.pool is None


def test_a_saturated_loop_is_told_to_have_too_much_work() -> None:
    (one,) = examine(recording((), [loop([9 * MS] * 6600, zero_waits=6600)])).culprits
    assert (one.kind, one.what_if) == ("saturation", None)
    assert one.advice is not None
    assert one.advice.remedy == "saturation"


def test_two_handlers_that_share_a_blocking_helper_are_two_culprits_at_one_line() -> None:
    helper = Frame(SERVER, 70, "load")
    reads = [blocked(50 * MS, path("read", "/a"), stack(20, "Server.handle", helper), k * S) for k in range(6)]
    uploads = [
        one._replace(current=UPLOAD)
        for one in (blocked(30 * MS, path("read", "/a"), uploading(45, helper), (10 + k) * S) for k in range(3))
    ]
    first, second = culprits(*reads, *uploads)
    assert (first.handler, second.handler) == (HANDLER, UPLOAD)
    assert first.location == second.location
    assert first.location is not None
    assert (first.location.line, first.location.function) == (70, "load")
    assert first.ns + second.ns == 390 * MS


@pytest.mark.parametrize("cause", ["read", "compute"])
def test_recursion_to_any_depth_is_one_culprit(cause: str) -> None:
    frame = Frame(SERVER, 80, "walk")
    stalls = []
    for depth in range(1, 8):
        where = stack(20, "Server.handle", *[frame] * depth)
        call = path("read", "/a") if cause == "read" else FUTEX
        at = depth * S
        spans = (Span(at, at + 50 * MS, 9, where, call, "S", 0 if cause == "read" else 50 * MS, 0, 0),)
        stalls.append(Stall(1, at, 50 * MS, current=HANDLER, spans=spans))
    (one,) = culprits(*stalls)
    assert (one.stalls, one.location and one.location.function) == (7, "walk")


def test_a_library_called_from_two_lines_is_two_culprits_in_the_users_code() -> None:
    stalls = [
        blocked(50 * MS, path("read", "/a"), stack(line, "Server.handle", LIBRARY), line * S) for line in (20, 21, 20)
    ]
    first, second = culprits(*stalls)
    assert [(one.location and one.location.line, one.stalls) for one in (first, second)] == [(20, 2), (21, 1)]
    assert all(LIBRARY in one.stack for one in (first, second))


def test_the_ledger_of_the_recording_sums_to_its_stalls() -> None:
    spans = (Span(0, 30 * MS, 9, stack(20), path("read", "/a"), "S", 0, 0, 0),)
    found = examine(recording([Stall(1, 0, 80 * MS, spans=spans), Stall(1, S, 40 * MS)]))
    assert sum(one.ns for one in found.causes) == 120 * MS
    assert sum(one.share for one in found.causes) == pytest.approx(1)
    assert {one.cause for one in found.causes} == {"blocking-syscall", "unexplained"}
    assert all(sum(one.ledger.values()) == one.ns for one in found.culprits)


def counted(calls: dict[int, int]) -> tuple[HandlerCounts, ...]:
    """So many calls of the handler, by their length in ns."""
    return (HandlerCounts(1, HANDLER, {bucket_of(ns): number for ns, number in calls.items()}),)


def crowd(start_ns: int = 0) -> Stall:
    """A hundred calls of one handler, half a millisecond each."""
    spans = (Span(start_ns, start_ns + 50 * MS, 20, stack(20), FUTEX, "S", 50 * MS, 0, 1),)
    times = (HandlerTime(HANDLER, 100, 50 * MS),)
    return Stall(1, start_ns, 50 * MS, current=HANDLER, handlers=times, spans=spans)


def test_a_hundred_calls_of_one_handler_are_a_pile_up_where_none_is_long() -> None:
    (one,) = examine(recording([crowd()], handlers=counted({MS // 2: 100}))).culprits
    assert (one.kind, [(time.handler, time.calls) for time in one.handlers]) == ("pile-up", [(HANDLER, 100)])


def test_a_few_calls_that_a_busy_machine_held_up_do_not_hide_a_pile_up() -> None:
    crowds = [crowd(k * S) for k in range(10)]
    (one,) = examine(recording(crowds, handlers=counted({MS // 2: 996, 48 * MS: 4}))).culprits
    assert one.kind == "pile-up"


def test_what_the_machine_took_is_no_part_of_a_pile_up() -> None:
    spans = (Span(0, 50 * MS, 20, stack(20), FUTEX, "S", 20 * MS, 30 * MS, 1),)
    made = recording([crowd()._replace(spans=spans)], handlers=counted({MS // 2: 100}))
    machine, piled = examine(made).culprits
    assert (machine.cause, machine.ns) == ("descheduled", 30 * MS)
    assert (piled.kind, piled.ns) == ("pile-up", 20 * MS)
    for cause, ns in (("descheduled", 30 * MS), ("python-cpu", 20 * MS)):
        foretold = examine(made, what_if=Removal(causes=(cause,))).prediction  # type: ignore[arg-type]
        assert foretold is not None
        assert foretold.removed_ns == ns


def test_one_long_call_among_a_hundred_is_its_line_and_no_pile_up() -> None:
    for calls in ({MS // 2: 99, 48 * MS: 1}, {}):
        (one,) = examine(recording([crowd()], handlers=counted(calls) if calls else ())).culprits
        assert (one.kind, one.cause, one.location and one.location.line) == ("site", "python-cpu", 20)


def test_what_the_record_names_no_more_counts_for_the_crowd() -> None:
    named = tuple(HandlerTime(Handler(f"task{k}", SERVER, k), 1, MS // 2) for k in range(8))
    rest = HandlerTime(Handler("(other handlers)"), 92, 46 * MS)
    spans = (Span(0, 50 * MS, 20, stack(20), FUTEX, "S", 50 * MS, 0, 1),)
    (one,) = culprits(Stall(1, 0, 50 * MS, handlers=(*named, rest), spans=spans))
    assert (one.kind, sum(time.calls for time in one.handlers)) == ("pile-up", 100)


def test_code_without_a_file_is_blamed_on_the_line_that_called_it() -> None:
    made = Frame("<attrs generated init app.Item>", 7, "__init__")
    (one,) = culprits(blocked(50 * MS, path("read", "/a"), stack(20, "load", made)))
    assert one.location is not None
    assert (one.location.file, one.location.line) == (SERVER, 20)
    alone = (Frame("<string>", 3, "main"), *LOOP_FRAMES[:2])
    (one,) = culprits(blocked(50 * MS, path("read", "/a"), alone))
    assert one.location is not None
    assert (one.location.file, one.location.line) == ("<string>", 3)


@pytest.mark.parametrize("name", ["<listcomp>", "load.<locals>.<listcomp>", "load.<locals>.<genexpr>"])
def test_a_comprehension_goes_by_its_function(name: str) -> None:
    inner = Frame(SERVER, 21, name)
    before = blocked(50 * MS, path("read", "/a"), stack(20, "load", inner))
    since_3_12 = blocked(50 * MS, path("read", "/a"), stack(21, "load"), S)  # comprehensions are inlined
    (one,) = culprits(before, since_3_12)
    assert one.location is not None
    assert (one.location.line, one.location.function, one.stalls) == (21, "load", 2)


def test_names_that_the_program_makes_up_are_one_handler() -> None:
    stalls = [
        blocked(50 * MS, path("read", "/a"), uploading(45), k * S)._replace(current=Handler(f"job_{k}", SERVER, 40))
        for k in range(5)
    ]
    (one,) = culprits(*stalls)
    assert one.handler == Handler("job_*", SERVER, 40)
    assert one.stalls == 5
    other = stalls[0]._replace(current=Handler("job_7", SERVER, 60), start_ns=9 * S)
    assert len(culprits(*stalls, other)) == 2


def worker(number: int, handler_line: int, *lines: int) -> tuple[Stall, ...]:
    """The stalls of one worker, whose handler begins at that line and blocks at those."""
    at = number * 10 * S
    return tuple(
        blocked(50 * MS, path("read", "/a"), stack(line), at + line * MS)._replace(
            loop_id=number,
            current=Handler("Server.handle", SERVER, handler_line),
        )
        for line in lines
    )


def of_workers(*stalls: Stall) -> tuple[Culprit, ...]:
    numbers = sorted({stall.loop_id for stall in stalls})
    loops = [loop([50_000] * 1000 + [50 * MS] * 2, loop_id=n)._replace(process_id=n, pid=100 + n) for n in numbers]
    return examine(recording(stalls, loops)).culprits


def test_lines_that_moved_between_two_workers_are_one_culprit_each_at_the_newer_line() -> None:
    found = of_workers(*worker(1, 10, 20, 25), *worker(2, 13, 23, 28))
    assert [(one.location and one.location.line, one.stalls) for one in found] == [(23, 2), (28, 2)]
    assert {one.handler and one.handler.line for one in found} == {13}


def test_other_lines_of_the_same_version_stay_apart() -> None:
    found = of_workers(*worker(1, 10, 20), *worker(2, 10, 23))
    assert [(one.location and one.location.line, one.stalls) for one in found] == [(20, 1), (23, 1)]
    unlike = of_workers(*worker(1, 10, 20, 25), *worker(2, 13, 23))
    assert len(unlike) == 3


def test_each_mode_names_all_that_fills_it() -> None:
    reads = [blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(60)]
    writes = [blocked(49 * MS, path("write", "/b"), stack(30), 10 * S + k * 100 * MS) for k in range(20)]
    spans = [Span(k * S, k * S + 48 * MS, 9, stack(40, "compute"), FUTEX, "S", 48 * MS, 0, 1) for k in range(20, 40)]
    computed = [Stall(1, span.from_ns, 48 * MS, current=HANDLER, spans=(span,)) for span in spans]
    found = examine(recording([*reads, *writes, *computed]))
    (mode,) = found.loops[0].mode_causes
    assert [rank for rank, _ in mode.culprits] == [1, 2, 3]
    assert sum(part for _, part in mode.culprits) == pytest.approx(1)
    assert [cause for cause, _ in mode.causes] == ["blocking-syscall", "python-cpu"]
    assert sum(part for _, part in mode.causes) == pytest.approx(1)


def test_the_ledger_of_a_culprits_stalls_is_theirs_whole() -> None:
    spans = (
        Span(0, 30 * MS, 9, stack(20), path("read", "/a"), "S", 0, 0, 0),
        Span(30 * MS, 50 * MS, 9, stack(40, "compute"), FUTEX, "S", 20 * MS, 0, 1),
    )
    read, compute = culprits(Stall(1, 0, 50 * MS, current=HANDLER, spans=spans))
    assert read.ledger == {"blocking-syscall": 30 * MS}
    assert read.stalls_ledger == compute.stalls_ledger == {"blocking-syscall": 30 * MS, "python-cpu": 20 * MS}


def test_the_gains_are_those_of_the_first_remedy_and_of_all() -> None:
    reads = [blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(200)]
    writes = [blocked(20 * MS, path("write", "/b"), stack(30), 30 * S + k * 100 * MS) for k in range(100)]
    now, first, both = examine(recording(reads + writes)).gains
    assert (now.culprits, first.culprits, both.culprits) == ((), (1,), (1, 2))
    assert (now.left.stall_wall_share, both.left.stall_wall_share) == pytest.approx((12 / 60, 0))
    assert first.left.stall_wall_share is not None
    assert 2 / 60 <= first.left.stall_wall_share <= 2 / 50
    assert examine(recording([Stall(1, 0, 50 * MS)])).gains == ()
