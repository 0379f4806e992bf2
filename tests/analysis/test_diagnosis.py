"""Situations that tools which show only a histogram, a stack or a call get wrong: each with the expected finding."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Culprit
from stallscope.recording.nouns import Frame, Handler, HandlerTime, Span, Stall
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
        replace(one, current=UPLOAD)
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
