"""Who is blamed: what merges, what does not, and how shares add up."""

from __future__ import annotations

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Culprit, Findings
from stallscope.recording.nouns import (
    Call,
    CoarseHistogram,
    Frame,
    GcPause,
    Handler,
    HandlerTime,
    Missing,
    Resource,
    Span,
    Stall,
)
from tests.analysis.recordings import (
    FUTEX,
    HANDLER,
    LOOP_FRAMES,
    MS,
    SERVER,
    S,
    blocked,
    loop,
    path,
    recording,
    sampled,
    stack,
)


def culprits(*stalls: Stall) -> tuple[Culprit, ...]:
    found = examine(recording(stalls))
    assert whole(found) == pytest.approx(1.0)
    return found.culprits


def whole(found: Findings) -> float:
    """The sum of all shares."""
    return sum(one.share for one in found.culprits) + (found.others.share if found.others else 0.0)


def test_a_site_is_named_by_its_call_file_handler_and_line() -> None:
    (one,) = culprits(blocked(50 * MS, path("write", "/var/log/access.log"), stack(33, "Server.log")))
    assert (one.rank, one.kind, one.cause, one.syscall, one.resource) == (
        1,
        "site",
        "blocking-syscall",
        "write",
        "/var/log/access.log",
    )
    assert one.handler == HANDLER
    assert one.location is not None
    assert (one.location.file, one.location.line, one.location.function) == (SERVER, 33, "Server.log")
    assert (one.stalls, one.ns, one.longest_ns) == (1, 50 * MS, 50 * MS)


def test_stalls_are_ranked_by_time_and_not_by_how_often_they_were_sampled() -> None:
    often = [blocked(12 * MS, path("read", "/a"), stack(20), k * S) for k in range(5)]
    long = blocked(90 * MS, path("read", "/b"), stack(30), 9 * S)
    first, second = culprits(*often, long)
    assert (first.resource, second.resource, second.stalls) == ("/b", "/a", 5)
    assert second.share == pytest.approx(60 / 150)


def test_two_lines_that_block_are_two_culprits_and_two_lines_that_compute_are_one() -> None:
    assert len(culprits(*(blocked(50 * MS, path("read", "/a"), stack(line), line * S) for line in (20, 21)))) == 2
    spans = [
        Span(0, 5 * MS, 1, stack(40, "compute"), FUTEX, "S"),
        Span(5 * MS, 15 * MS, 2, stack(40, "compute"), FUTEX, "S", 10 * MS, 0, 1),
        Span(15 * MS, 50 * MS, 2, stack(41, "compute"), FUTEX, "S", 35 * MS, 0, 1),
    ]
    (one,) = culprits(Stall(1, 0, 50 * MS, current=HANDLER, spans=tuple(spans)))
    assert one.location is not None
    assert (one.cause, one.location.line, one.syscall) == ("python-cpu", 41, None)
    assert one.stack == spans[-1].stack


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ([Resource("path", f"/data/archive/{letter}.bin") for letter in "abc"], "/data/archive/*.bin"),
        ([Resource("path", f"/data/log-{n}.txt") for n in (1, 2)], "/data/log-*.txt"),
        ([Resource("path", "/run/fifo"), Resource("path", "/run/fifo (deleted)")], "/run/fifo"),
        ([Resource("path", "/tmp/x"), Resource("path", "/etc/passwd")], "2 paths"),
        ([Resource("peer", f"10.0.0.5:{port}") for port in (80, 81, 82)], "3 peers at 10.0.0.5:*"),
        ([Resource("peer", "10.0.0.5:80"), Resource("peer", "10.0.0.6:80")], "2 peers"),
        ([Resource("pipe", "pipe:[1]"), Resource("pipe", "pipe:[2]")], "2 pipes"),
        ([Resource("timer", "")], None),
    ],
)
def test_several_resources_of_one_site_share_a_name(resources: list[Resource], name: str | None) -> None:
    (one,) = culprits(
        *(blocked(50 * MS, Call("read", resource), stack(20), k * S) for k, resource in enumerate(resources))
    )
    assert one.resource == name
    assert one.stalls == len(resources)


def test_the_location_is_the_users_own_code() -> None:
    library = Frame("/srv/venv/lib/python3.11/site-packages/pkg/io.py", 5, "load")
    stdlib = Frame("/usr/lib/python3.11/pathlib.py", 1044, "Path.read_bytes")
    (one,) = culprits(blocked(50 * MS, path("read", "/a"), stack(20, "Server.handle", stdlib, library)))
    assert one.location is not None
    assert (one.location.file, one.location.line) == (SERVER, 20)
    (none_own,) = culprits(blocked(50 * MS, path("read", "/a"), (stdlib, library, *LOOP_FRAMES)))
    assert none_own.location is not None
    assert none_own.location.function == "Path.read_bytes"


def test_each_part_of_a_stall_belongs_to_the_handler_on_its_stack() -> None:
    other = Handler("Server.other", SERVER, 60)
    there = (Frame(SERVER, 66, "Server.other"), *LOOP_FRAMES)
    spans = (
        Span(0, 30 * MS, 9, stack(20), path("read", "/a"), "S", 0, 0, 0),
        Span(30 * MS, 50 * MS, 9, there, path("read", "/b"), "S", 0, 0, 0),
    )
    times = (HandlerTime(HANDLER, 1, 30 * MS), HandlerTime(other, 1, 20 * MS))
    found = culprits(Stall(1, 0, 50 * MS, handlers=times, current=HANDLER, spans=spans))
    assert [(one.handler, one.ns) for one in found] == [(HANDLER, 30 * MS), (other, 20 * MS)]


def test_many_short_handlers_are_a_pile_up() -> None:
    handlers = tuple(HandlerTime(Handler(f"task{k}", SERVER, k), 4, 10 * MS) for k in range(5))
    spans = tuple(
        Span(k * 10 * MS, (k + 1) * 10 * MS, 2, (Frame(SERVER, k, f"task{k}"), *LOOP_FRAMES), FUTEX, "S", 10 * MS, 0, 1)
        for k in range(5)
    )
    (one,) = culprits(Stall(1, 0, 50 * MS, handlers=handlers, spans=spans))
    assert (one.kind, one.cause, one.stalls, one.location) == ("pile-up", "python-cpu", 1, None)
    assert [(time.handler.name, time.calls) for time in one.handlers] == [(f"task{k}", 4) for k in range(5)]
    log = path("write", "/var/log/a")
    shared = sampled(50 * MS, log, stack(70, "log"))
    (site,) = culprits(Stall(1, 0, 50 * MS, handlers=handlers, spans=shared))
    assert (site.kind, site.syscall) == ("site", "write")
    heavy = (HandlerTime(HANDLER, 20, 30 * MS), *handlers)
    assert all(one.kind == "site" for one in culprits(Stall(1, 0, 50 * MS, handlers=heavy, spans=spans)))


def test_a_loop_that_never_waits_is_saturated() -> None:
    busy = loop([9 * MS] * 6500, zero_waits=6499)
    found = examine(recording((), [busy])).culprits
    assert [(one.kind, one.share, one.loop_id) for one in found] == [("saturation", 0.0, 1)]
    assert examine(recording((), [loop([9 * MS] * 6500, zero_waits=6000)])).culprits == ()


def test_what_nobody_explains_has_a_row_without_a_place() -> None:
    first, second = culprits(Stall(1, 0, 80 * MS), blocked(20 * MS, path("read", "/a"), stack(20), S))
    assert (first.cause, first.handler, first.location, first.advice) == ("unexplained", None, None, None)
    assert second.cause == "blocking-syscall"


def test_small_culprits_are_folded() -> None:
    small = [blocked(10 * MS, path("read", "/a"), stack(line), line * MS) for line in range(20, 23)]
    found = examine(recording((blocked(9 * S, path("read", "/b"), stack(50)), *small)))
    assert len(found.culprits) == 1
    assert found.others is not None
    assert (found.others.culprits, found.others.ns) == (3, 30 * MS)
    assert whole(found) == pytest.approx(1.0)
    assert [one.culprit for one in found.stalls] == [1, None, None, None]


def test_the_heaviest_of_many_small_culprits_has_a_row() -> None:
    found = examine(recording([blocked(20 * MS, path("read", "/a"), stack(k), k * S) for k in range(1, 301)]))
    assert [one.stalls for one in found.culprits] == [1]
    assert found.others is not None
    assert found.others.culprits == 299
    assert whole(found) == pytest.approx(1.0)


def test_without_the_culprit_the_stalls_are_gone() -> None:
    reads = [blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(200)]
    writes = [blocked(20 * MS, path("write", "/b"), stack(30), k * 100 * MS) for k in range(50)]
    found = examine(recording(reads + writes))
    read, write = found.culprits
    assert read.what_if is not None
    assert write.what_if is not None
    assert found.loops[0].percentiles is not None
    assert found.loops[0].percentiles.p99_ns == pytest.approx(50 * MS, rel=0.001)
    assert read.what_if.p99_ns < MS
    assert read.what_if.stall_wall_share is not None
    assert 1 / 60 <= read.what_if.stall_wall_share <= 1 / 50  # the writes, and how much more often they may come
    assert write.what_if.p99_ns == pytest.approx(50 * MS, rel=0.001)
    assert write.what_if.stall_wall_share is not None
    assert 10 / 60 <= write.what_if.stall_wall_share <= 10 / 59


def test_few_samples_are_said_to_be_few() -> None:
    (one,) = culprits(Stall(1, 0, 12 * MS, spans=(Span(0, 9 * MS, 1, stack(20), path("read", "/a"), "S"),)))
    assert one.low_confidence
    assert one.advice is not None
    assert "Low confidence" in one.advice.summary
    (exact,) = culprits(Stall(1, 0, 12 * MS, pauses=(GcPause(0, 12 * MS, 2, stack(20)),)))
    assert not exact.low_confidence


def test_the_partial_remedy_is_named() -> None:
    opens = [blocked(50 * MS, path("openat", "/a"), stack(20), k * S) for k in range(3)]
    reads = [blocked(40 * MS, path("read", "/a"), stack(21), 10 * S + k * S) for k in range(3)]
    first, second = culprits(*opens, *reads)
    assert first.advice is not None
    assert "read blocks in the same handler (#2)" in first.advice.summary
    assert second.advice is not None
    assert "openat blocks in the same handler (#1)" in second.advice.summary


@pytest.mark.parametrize(
    ("call", "frames", "said"),
    [
        (path("read", "/a"), (), "asyncio.to_thread(blocking_part, ...)"),
        (path("openat", "/a"), (), "asyncio.to_thread(blocking_part, ...)"),
        (path("fsync", "/a"), (), "threading.Thread"),
        (
            path("write", "/a"),
            (Frame("/usr/lib/python3.11/logging/__init__.py", 1, "StreamHandler.emit"),),
            "QueueListener",
        ),
        (Call("clock_nanosleep", Resource("timer", "")), (), "asyncio.sleep"),
        (Call("select", Resource("timer", "")), (), "asyncio.sleep"),
        (path("flock", "/a"), (), "asyncio.to_thread"),
        (Call("connect", Resource("peer", "10.0.0.1:80")), (), "open_connection"),
        (Call("read", Resource("pipe", "pipe:[1]")), (), "connect_read_pipe"),
        (Call("poll"), (Frame("/usr/lib/python3.11/socket.py", 1, "getaddrinfo"),), ".getaddrinfo("),
        (Call("wait4", Resource("child", "pid 7")), (), "create_subprocess_exec"),
        (FUTEX, (), "asyncio.Lock"),
    ],
)
def test_advice_is_for_the_call_itself(call: Call, frames: tuple[Frame, ...], said: str) -> None:
    (one,) = culprits(blocked(50 * MS, call, stack(20, "Server.handle", *frames)))
    assert one.advice is not None
    assert said in one.advice.code + one.advice.summary
    assert max(map(len, one.advice.code.splitlines())) <= 72


def test_advice_for_computing_is_a_process_and_for_the_collector_a_freeze() -> None:
    (computing,) = culprits(Stall(1, 0, 50 * MS, spans=sampled(50 * MS, FUTEX, stack(20), cpu=1.0)))
    (collecting,) = culprits(Stall(1, 0, 50 * MS, pauses=(GcPause(0, 50 * MS, 2, stack(20)),)))
    assert computing.advice is not None
    assert "ProcessPoolExecutor" in computing.advice.code
    assert collecting.advice is not None
    assert "gc.freeze" in collecting.advice.code


def test_a_higher_threshold_judges_again_and_a_lower_one_counts_only() -> None:
    stalls = [blocked(k * MS, path("read", "/a"), stack(20), k * S) for k in (15, 30, 45)]
    higher = examine(recording(stalls), 20 * MS)
    assert (higher.loops[0].stall_count, len(higher.stalls), higher.missing) == (2, 2, ())
    lower = examine(recording(stalls), 100_000)
    assert lower.loops[0].stall_count > 1000
    assert len(lower.stalls) == 3
    assert [one.what for one in lower.missing] == ["details of stalls shorter than 10 ms"]


def test_what_a_cut_off_recording_lacks_is_said() -> None:
    found = examine(recording((), suppressed=7, complete=False))
    assert [type(one) for one in found.missing] == [Missing, Missing]
    assert "7 stalls" in found.missing[0].what


def test_an_iteration_in_progress_counts_and_stretches_the_loops_time() -> None:
    hung = blocked(34 * S, Call("read", Resource("pipe", "pipe:[1]")), stack(12), 50 * S, finished=False)
    one = examine(recording((hung,))).loops[0]
    assert (one.iterations, one.stall_count, one.stall_ns, one.wall_ns) == (10_001, 1, 34 * S, 84 * S)


def test_loops_come_by_stall_time_and_a_loop_without_iterations_last() -> None:
    loops = [loop([]), loop([MS] * 100 + [50 * MS], loop_id=2), loop([MS] * 100 + [80 * MS], loop_id=3)]
    found = examine(recording((), loops)).loops
    assert [one.loop.id for one in found] == [3, 2, 1]
    assert found[-1].percentiles is None
    assert found[-1].modality.shape == "too-few"


def test_a_histogram_of_a_foreign_tool_is_judged_by_its_own_buckets() -> None:
    ms = (0, 2, 4, 8, 16, 32, 64, 128)  # Dropbox's nginx, as funclatency printed it
    coarse = CoarseHistogram(tuple(k * MS for k in ms), (3799, 0, 0, 0, 409, 313, 128))
    foreign = loop([], wall_ns=0, zero_waits=None)._replace(coarse=coarse)
    found = examine(recording((), [foreign], source="funclatency"))
    (one,) = found.loops
    assert (one.iterations, one.stall_count, one.modality.shape) == (4649, 850, "bimodal")
    assert (one.utilization, one.arrival, one.stall_wall_share, one.zero_wait_share) == (None, None, None, None)
    unwatched = examine(recording((), [loop([MS], wall_ns=0)]))
    assert [missing.what for missing in unwatched.missing] == ["utilization, and what an arrival feels"]
    (cause,) = one.mode_causes
    assert (cause.mode, cause.culprits, cause.causes) == (2, (), ())


def test_a_stall_mode_is_traced_to_the_culprit_that_made_it() -> None:
    reads = [blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(60)]
    writes = [blocked(49 * MS, path("write", "/b"), stack(30), k * 100 * MS) for k in range(20)]
    (cause,) = examine(recording(reads + writes)).loops[0].mode_causes
    assert cause.mode == 2
    assert [rank for rank, _ in cause.culprits] == [1, 2]
    assert [part for _, part in cause.culprits] == pytest.approx([3000 / 3980, 980 / 3980])
    assert cause.causes == (("blocking-syscall", 1.0),)
    assert 0.7 < cause.busy_share < 0.8


def test_log2_rows_are_those_of_funclatency() -> None:
    one = examine(recording((), [loop([500, 1500, 3000, 70_000])])).loops[0]
    assert [(row.lo_us, row.hi_us) for row in one.log2[:3]] == [(0, 1), (2, 3), (4, 7)]
    assert [row.hi_us for row in one.log2 if row.count] == [1, 3, 127]
    assert sum(row.count for row in one.log2) == 4
