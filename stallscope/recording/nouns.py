"""The nouns that every phase shares: what a recording holds, typed and documented.

Collect and ingest make them, the writer stores them, the reader brings them back, analysis
turns them into findings. Times are nanoseconds on the target's monotonic clock unless the
name says otherwise. ``None`` means "this source cannot know", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

ResourceKind = Literal["path", "peer", "pipe", "lock", "child", "host", "timer", "other"]

Counts = Mapping[int, int]
"""A histogram: bucket (see ``stallscope.agent.layout``) -> count; empty buckets are absent."""


class Frame(NamedTuple):
    """One frame of a stack."""

    file: str
    line: int
    function: str


Stack = tuple[Frame, ...]
"""Innermost frame first. Empty when unknown."""


class Resource(NamedTuple):
    """What a call touched: a path, a peer ``host:port``, a pipe, a lock, a child, a host name."""

    kind: ResourceKind
    name: str


class Call(NamedTuple):
    """A system call (or a blocking library call) by name, with what it touched."""

    name: str
    resource: Resource | None = None
    detail: str = ""
    """Arguments worth showing, e.g. ``fd 7`` or ``0.050 s``."""


class Handler(NamedTuple):
    """What the loop called: a coroutine or a callback, where it is defined."""

    name: str
    file: str = ""
    line: int = 0


class HandlerTime(NamedTuple):
    """A handler's part in one stall."""

    handler: Handler
    calls: int
    total_ns: int


class Span(NamedTuple):
    """A stretch of a stall between two samples, described by the sample at its end.

    Neighbours that look alike are merged (``samples`` counts them). The counters are what the
    loop's thread spent inside the stretch. The first span of a stall reaches back to the start of
    the iteration, before sampling began: its counters are ``None``, but for ``cpu_ns`` where the
    thread was looked at shortly before. An empty stack: the stall ended before anybody sampled it.
    """

    from_ns: int
    to_ns: int
    samples: int
    stack: Stack
    call: Call | None
    """The system call in which the thread was caught, if any."""
    state: str
    """Kernel thread state letter: R, S, D, T …; empty when unknown."""
    cpu_ns: int | None = None
    run_delay_ns: int | None = None
    """Runnable but not running (``/proc/PID/task/TID/schedstat``)."""
    switches: int | None = None
    """Voluntary context switches. 0 with a call at both ends: one continuous block."""
    late_ns: int = 0
    """How long the sampler had to wait for the GIL: long means C code that holds it."""


class TimedCall(NamedTuple):
    """A call whose duration was measured exactly (by the pulse, or by a tracer)."""

    start_ns: int
    duration_ns: int
    call: Call
    stack: Stack = ()
    calls: int = 1
    """More than one: many short calls of one kind in one iteration, summed: ``duration_ns`` is their sum, spread
    over the time from ``start_ns`` on."""


class GcPause(NamedTuple):
    """One run of the garbage collector, with the stack that set it off."""

    start_ns: int
    duration_ns: int
    generation: int
    stack: Stack = ()


class Stall(NamedTuple):
    """An iteration at or above the threshold, with all that is known of it."""

    loop_id: int
    start_ns: int
    duration_ns: int
    finished: bool = True
    """False: still in progress when the recording ended (hung, killed, or cut off)."""
    task: str | None = None
    """Name of the asyncio task that was caught in it."""
    handlers: tuple[HandlerTime, ...] = ()
    """Heaviest first; only the handlers that ended after sampling began."""
    current: Handler | None = None
    """The handler in which the samples caught the loop."""
    spans: tuple[Span, ...] = ()
    calls: tuple[TimedCall, ...] = ()
    pauses: tuple[GcPause, ...] = ()


class Process(NamedTuple):
    """One observed process image (``exec`` makes a new one under the same pid)."""

    id: int
    pid: int
    parent_pid: int
    program: str
    """The command line, as the process shows it."""
    runtime: str
    """For example ``CPython 3.11.7``; empty when unknown."""
    started_ns: int
    ended_ns: int | None = None
    ending: str = ""
    """How it went: ``exited``, ``killed``, ``replaced``, ``disabled: reason``; empty: unknown."""


class CoarseHistogram(NamedTuple):
    """A histogram whose buckets are coarser than ``Counts`` can hold, as foreign tools print them."""

    edges_ns: tuple[int, ...]
    """Ascending, one more than ``counts``; an open last bucket is closed at twice its lower edge."""
    counts: tuple[int, ...]
    tick_ns: int = 0
    """Resolution of the source's clock, where it is coarser than the buckets; 0 where it does not matter."""
    per_octave: int = 1
    """1: buckets of an octave or wider; 4: finer ones."""


class Interval(NamedTuple):
    """The iterations of a stretch of a loop's life."""

    from_ns: int
    to_ns: int
    counts: Counts


class Loop(NamedTuple):
    """One event loop: a thread that waits, and what its iterations were."""

    id: int
    process_id: int
    pid: int
    tid: int
    kind: str
    """``asyncio``, ``uvloop``, ``trio`` … or ``epoll`` for a loop known by its waits alone."""
    name: str
    """Thread name and loop class, for people."""
    opened_ns: int
    """When it was first seen."""
    last_ns: int
    """When it was last seen alive: ``last_ns - opened_ns`` is its wall time."""
    counts: Counts
    zero_waits: int | None = None
    """Waits with a timeout of zero (saturation)."""
    coarse: CoarseHistogram | None = None
    """Used instead of ``counts``, which is empty then, when the source has only coarse buckets."""
    cpu_ns: int | None = None
    """CPU time of its thread while it was watched, to about 0.1 s."""
    intervals: tuple[Interval, ...] = ()
    """``counts`` in the order of time, without a gap from ``opened_ns`` to ``last_ns``; empty unless they were asked
    for, and when the source keeps none."""


class HandlerCounts(NamedTuple):
    """A handler's histogram over the whole recording of its process.

    Measured by the agent alone, calls under a 64th of the threshold are a sample, weighted: one
    in 16 is identified and counts for 16. Longer calls are counted one by one.
    """

    process_id: int
    handler: Handler
    counts: Counts


class CallSite(NamedTuple):
    """A place that makes a blocking call inside iterations, however short the call.

    Totals over the whole recording of its process. ``hits`` and ``total_ns`` are estimates where
    the pulse draws a sample; ``longest_ns`` is the longest that was seen.
    """

    process_id: int
    handler: Handler | None
    """Inside which handler; ``None`` when unknown."""
    call: Call
    stack: Stack
    hits: int
    total_ns: int
    longest_ns: int


class Executor(NamedTuple):
    """A thread pool of a process (``concurrent.futures``), as often as it was looked at."""

    process_id: int
    name: str
    """What its threads are called, less their numbers."""
    is_default: bool
    """It is a loop's own: ``asyncio.to_thread`` and ``run_in_executor(None, ...)`` go there."""
    most_threads: int | None
    """That it may have; ``None`` when unknown."""
    threads: int
    """The most that it had at once."""
    looks: int
    """How often it was looked at, about ten times a second."""
    busy: int
    """Threads at work, summed over the looks."""
    queued_looks: int
    """Looks that met calls in its queue."""
    deepest: int
    """Calls in its queue, the most that a look met."""


EVIDENCE = "evidence"
"""What is missing where so much could not be read that nothing can be judged by the rest."""


class Missing(NamedTuple):
    """Something that this recording could not see, and why."""

    what: str
    why: str


class Fidelity(NamedTuple):
    """What a recording could and could not see."""

    level: str
    """``agent``, ``pulse``, or the foreign format's name."""
    missing: tuple[Missing, ...] = ()

    @property
    def no_evidence(self) -> str:
        """Why nothing can be judged by this recording; empty where it can."""
        return next((one.why for one in self.missing if one.what == EVIDENCE), "")


class Recording(NamedTuple):
    """Everything in one ``.stall`` file, or in one foreign trace."""

    path: str
    source: str
    """``stallscope``, or the name of the foreign format."""
    threshold_ns: int
    started_ns: int
    ended_ns: int
    fidelity: Fidelity
    processes: tuple[Process, ...] = ()
    loops: tuple[Loop, ...] = ()
    handlers: tuple[HandlerCounts, ...] = ()
    stalls: tuple[Stall, ...] = ()
    suppressed: int = 0
    """Stalls that are in the histograms but whose details were not kept."""
    complete: bool = True
    """False: the recorder was killed; what follows its last second is missing."""
    notes: tuple[str, ...] = ()
    """Sentences for the reader, such as "recording stopped: disk full"."""
    call_sites: tuple[CallSite, ...] = ()
    """Empty when none was seen, and when the source sees calls only inside stalls."""
    recorder: str = ""
    """The version of stallscope that measured; empty when unknown, and for foreign traces."""
    counted_calls: frozenset[str] | None = None
    """Names of the calls that are in ``call_sites`` wherever an iteration makes them; ``None`` when unknown."""
    started_wall_s: float | None = None
    """``started_ns`` in seconds since 1970-01-01 UTC; ``None`` when unknown."""
    executors: tuple[Executor, ...] = ()
    """Thread pools; empty when no look met one, and when the source cannot see them."""
