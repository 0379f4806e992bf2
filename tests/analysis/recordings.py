"""Hand-made recordings: nouns as the agent would have made them, for the tests of analysis, reports and commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from stallscope.agent.layout import bucket_of
from stallscope.recording.nouns import (
    Call,
    Fidelity,
    Frame,
    Handler,
    Loop,
    Process,
    Recording,
    Resource,
    Span,
    Stack,
    Stall,
)

MS = 1_000_000
S = 1_000_000_000
THRESHOLD = 10 * MS

SERVER = "/srv/app/server.py"
HANDLER = Handler("Server.handle", SERVER, 10)
EVENTS = "/usr/lib/python3.11/asyncio/events.py"
LOOP_FRAMES = (
    Frame(EVENTS, 80, "Handle._run"),
    Frame("/usr/lib/python3.11/asyncio/base_events.py", 1922, "BaseEventLoop._run_once"),
    Frame(SERVER, 99, "<module>"),
)


def stack(line: int, function: str = "Server.handle", *inner: Frame) -> Stack:
    """A stack caught in `function` of the server, in the frames `inner` that it called."""
    entered = () if function == "Server.handle" else (Frame(SERVER, 12, "Server.handle"),)
    return (*inner, Frame(SERVER, line, function), *entered, *LOOP_FRAMES)


def path(name: str, resource: str, detail: str = "fd 7") -> Call:
    """A call that touches a path."""
    return Call(name, Resource("path", resource), detail)


FUTEX = Call("futex", Resource("lock", ""))


def sampled(
    duration_ns: int,
    call: Call | None,
    where: Stack,
    *,
    start_ns: int = 0,
    cpu: float = 0.0,
    delay: float = 0.0,
    switches_per_sample: float = 0.0,
    state: str = "S",
    late_ns: int = 0,
    distance_ns: int = 2_500_000,
) -> tuple[Span, ...]:
    """The two spans of code that did one thing: up to the first sample, and all the others merged."""
    first, last = start_ns + distance_ns, start_ns + duration_ns - distance_ns // 2
    length = last - first
    samples = max(1, length // distance_ns)
    return (
        Span(start_ns, first, 1, where, call, state),
        Span(
            first,
            last,
            samples,
            where,
            call,
            state,
            round(length * cpu),
            round(length * delay),
            round(samples * switches_per_sample),
            late_ns,
        ),
    )


def blocked(duration_ns: int, call: Call, where: Stack, start_ns: int = 0, **more: object) -> Stall:
    """A stall that waited in one call."""
    spans = sampled(duration_ns, call, where, start_ns=start_ns)
    return Stall(1, start_ns, duration_ns, current=HANDLER, spans=spans, **more)  # type: ignore[arg-type]


def loop(durations_ns: Iterable[int], wall_ns: int = 60 * S, loop_id: int = 1, zero_waits: int | None = 0) -> Loop:
    """A loop whose iterations were so long."""
    counts = Counter(map(bucket_of, durations_ns))
    return Loop(loop_id, 1, 100, 100 + loop_id, "asyncio", "MainThread", 0, wall_ns, counts, zero_waits)


def recording(stalls: Sequence[Stall], loops: Sequence[Loop] | None = None, **changes: object) -> Recording:
    """A recording of a minute, its loop 1 with ten thousand fast iterations besides the stalls."""
    fast = [50_000 + 13 * k for k in range(10_000)]
    finished = [stall.duration_ns for stall in stalls if stall.finished and stall.loop_id == 1]
    values: dict[str, object] = {
        "path": "x.stall",
        "source": "stallscope",
        "threshold_ns": THRESHOLD,
        "started_ns": 0,
        "ended_ns": 60 * S,
        "fidelity": Fidelity("agent"),
        "processes": (Process(1, 100, 1, "python server.py", "CPython 3.11.7", 0, 60 * S, "exited"),),
        "loops": (loop(fast + finished),) if loops is None else tuple(loops),
        "stalls": tuple(stalls),
    }
    return Recording(**{**values, **changes})  # type: ignore[arg-type]
