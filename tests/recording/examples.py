"""Recordings for the tests of the file: one with everything in it, and the means to write it."""

from __future__ import annotations

from pathlib import Path

from stallscope.recording.nouns import (
    Call,
    CallSite,
    CoarseHistogram,
    Executor,
    Fidelity,
    Frame,
    GcPause,
    Handler,
    HandlerCounts,
    HandlerTime,
    Loop,
    Missing,
    Process,
    Recording,
    Resource,
    Span,
    Stall,
    TimedCall,
)
from stallscope.recording.writer import SECOND_NS, Writer

STARTED_NS = 5_000 * SECOND_NS
STARTED_WALL_S = 1_700_000_000.25
THRESHOLD_NS = 10_000_000

LOG = Handler("Server.handle", "/srv/server.py", 40)
PING = Handler("ping")
OUTER = Frame("/srv/main.py", 7, "main")
STACK = (Frame("/srv/server.py", 45, "log"), Frame("/srv/server.py", 41, "Server.handle"), OUTER)
WRITE = Call("write", Resource("path", "/var/log/access.log"), "fd 7")
FIRST_SPAN = Span(STARTED_NS, STARTED_NS + 2_500_000, 1, (), None, "")
LAST_SPAN = Span(STARTED_NS + 2_500_000, STARTED_NS + 50_000_000, 19, STACK, WRITE, "D", 11, 22, 0, 33)
STALL = Stall(
    loop_id=1,
    start_ns=STARTED_NS,
    duration_ns=50_100_000,
    task="Task-1 \N{SNOWMAN}",
    handlers=(HandlerTime(LOG, 1, 50_000_000), HandlerTime(PING, 3, 9)),
    current=LOG,
    spans=(FIRST_SPAN, LAST_SPAN),
    calls=(TimedCall(STARTED_NS + 1, 49_000_000, WRITE, STACK), TimedCall(STARTED_NS + 2, 5, Call("stat"), (), 4)),
    pauses=(GcPause(STARTED_NS + 3, 1_000, 2, STACK[1:]), GcPause(STARTED_NS + 4, 10, 0)),
)
SITE = CallSite(1, LOG, WRITE, STACK, 1234, 5_600_000, 78_000)
HUNG = Stall(loop_id=2, start_ns=STARTED_NS + 7, duration_ns=34 * SECOND_NS, finished=False, spans=(LAST_SPAN,))

EVERYTHING = Recording(
    path="",
    source="stallscope",
    threshold_ns=THRESHOLD_NS,
    started_ns=STARTED_NS,
    ended_ns=STARTED_NS + 60 * SECOND_NS,
    fidelity=Fidelity("pulse", (Missing("run-queue delay", "no /proc"), Missing("another", "reason"))),
    processes=(
        Process(1, 4711, 1, "python 'my app.py'\t-x", "CPython 3.11.7", STARTED_NS, STARTED_NS + 9, "killed"),
        Process(2, 4712, 4711, "", "", STARTED_NS + 2),
    ),
    loops=(
        Loop(
            1,
            1,
            4711,
            4711,
            "asyncio",
            "MainThread",
            STARTED_NS,
            STARTED_NS + 8,
            {0: 1, 400: 2**40, 900: 3},
            17,
            None,
            5,
        ),
        Loop(2, 2, 4712, 4713, "uvloop", "worker", STARTED_NS + 3, STARTED_NS + 3, {}, None),
        Loop(
            3, 2, 4712, 4714, "epoll", "", STARTED_NS, STARTED_NS, {}, None, CoarseHistogram((0, 2, 4), (5, 0), 1000, 4)
        ),
    ),
    handlers=(HandlerCounts(1, LOG, {700: 5, 1279: 1}), HandlerCounts(2, LOG, {0: 2})),
    stalls=(STALL, HUNG),
    suppressed=12,
    notes=("the first", "the second"),
    started_wall_s=STARTED_WALL_S,
    call_sites=(SITE, CallSite(2, LOG, WRITE, STACK, 1, 2, 2), CallSite(2, None, Call("stat"), (), 3, 9, 4)),
    recorder="0.0.9",
    counted_calls=frozenset({"openat", "write"}),
    executors=(Executor(1, "asyncio", True, 6, 3, 40, 61, 2, 5), Executor(1, "disk", False, None, 2, 40, 0, 0, 0)),
)


def new_writer(path: Path, *, force: bool = False) -> Writer:
    return Writer(
        path,
        source="stallscope",
        threshold_ns=THRESHOLD_NS,
        started_ns=STARTED_NS,
        started_wall_s=STARTED_WALL_S,
        force=force,
    )


def with_one_loop(path: Path, *, force: bool = False) -> Writer:
    """A writer with process 1 and loop 1."""
    writer = new_writer(path, force=force)
    writer.process(4711, 1, "python app.py", "CPython 3.11.7", STARTED_NS)
    writer.loop(1, 4711, "asyncio", "MainThread", STARTED_NS)
    return writer
