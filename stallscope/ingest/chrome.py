"""Chrome's trace event JSON: browsers (`RunTask`), viztracer and Perfetto exports.

A thread's iterations are what lies between its waits where it has spans of a selector (viztracer: `select.epoll.poll`,
`EpollSelector.select`), and otherwise its `RunTask` spans, which are a browser's turns.  Other threads ran no loop.
What `stallscope export` wrote holds stalls alone.
Form: "Trace Event Format" (the Chromium project): complete events `X`, pairs `B`/`E`; `ts` and `dur` in microseconds.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from stallscope.agent.layout import bucket_of
from stallscope.errors import UnreadableInput
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_ITERATIONS, loop_of, plural, process_of, recording_of
from stallscope.recording.nouns import Handler, HandlerTime, Loop, Missing, Recording, Stall

SELECT = re.compile(r"^\w*Selector\.select\b|^select \(.*selectors\.py")
WAIT = re.compile(r"^select\.(?:\w+\.poll|kqueue\.control|select)$")
"""A wait below the selectors module; where that is traced too, one outside it is a blocking call."""
TURN = re.compile(r"^(?:ThreadControllerImpl::)?RunTask$|^(?:Message ?Loop|TaskQueueManager)\w*::\w*RunTask$")
MACHINERY = re.compile(
    r"asyncio/|/asyncio|selectors\.py|^builtins?\.|Context\.run|_contextvars|^FunctionCall$|^RunTask$"
)
STALL = "stallscope,stall"
"""The category of a stall in our own exports; its name is the handler's."""
PLACE = re.compile(r"^(.*?) \((.*):(\d{1,7})\)$")
HANDLERS_KEPT = 16
LONGEST_US = 1e15
ENDS_TRIED = 8
"""Braces nest a few deep in an event's arguments."""
BREAKS_OFF = "the trace breaks off: what follows is missing"
KERNEL_TIDS = 1 << 22
"""No kernel thread has a greater number (PID_MAX_LIMIT in linux/threads.h)."""
EXPORTED = Missing("calls, resources and causes", "of an export they are not read: analyze the recording itself")
NO_CALLS = Missing("calls, resources and causes", "the trace holds functions, not system calls")


@dataclass(slots=True, order=True)
class Slice:
    """One span of a thread, in ns."""

    start_ns: int
    end_ns: int
    name: str


@dataclass(slots=True)
class Lane:
    """The spans of one thread."""

    slices: list[Slice] = field(default_factory=list)
    begun: list[tuple[int, str]] = field(default_factory=list)
    stalls: list[Slice] = field(default_factory=list)
    name: str = ""

    def waits(self) -> bool:
        return bool(_waits(self.slices))


def recognises(head: str) -> bool:
    start = head.lstrip()[:1]
    return start in ("{", "[") and ('"traceEvents"' in head or (start == "[" and '"ph"' in head and '"ts"' in head))


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that has turns."""
    events, torn = _events(source)
    lanes, bad = _lanes(events)
    _merge_tasks(lanes)
    loops: list[Loop] = []
    stalls: list[Stall] = []
    idle = 0
    for (pid, tid), lane in sorted(lanes.items()):
        lane.slices.sort()
        turns = list(_turns(lane.slices))
        if lane.stalls:
            loops.append(loop_of(len(loops) + 1, tid, "chrome", lane.name or f"thread {tid}"))
            stalls.extend(_exported(len(loops), lane.stalls))
        elif turns:
            loops.append(_loop(len(loops) + 1, pid, tid, lane, turns))
            stalls.extend(_stalls(len(loops), lane.slices, turns, threshold_ns))
        else:
            idle += bool(lane.slices)
    notes = [f"{plural(idle, 'thread')} ran no event loop that the trace shows, and did not count"] * bool(idle)
    notes += [f"{plural(bad, 'event')} could not be read and did not count"] * bool(bad)
    notes += [BREAKS_OFF] * torn
    return recording_of(
        source,
        "chrome",
        threshold_ns,
        loops=loops,
        processes=[process_of(loop.id, loop.pid, loop.name, loop.opened_ns, loop.last_ns) for loop in loops],
        stalls=stalls,
        missing=[EXPORTED, NO_ITERATIONS] if any(lane.stalls for lane in lanes.values()) else [NO_CALLS],
        notes=notes,
    )


def _events(source: Source) -> tuple[list[Any], bool]:
    """The events, and whether they break off: the array may lack its end, as Chrome leaves it when it is killed."""
    text = source.whole().decode("utf-8", "replace").strip()
    for candidate in (text, *_ended(text)):
        try:
            content = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        events = content.get("traceEvents") if isinstance(content, dict) else content
        if isinstance(events, list):
            return events, candidate is not text
    raise UnreadableInput(f"{source.name} is JSON that breaks off or holds no trace events: export the trace again.")


def _ended(text: str) -> Iterator[str]:
    """What breaks off, with an end put to it behind one of the last braces: that of the last whole event."""
    end = "]}" if text.startswith("{") else "]"
    at = len(text)
    for _ in range(ENDS_TRIED):
        at = text.rfind("}", 0, at)
        if at < 0:
            return
        yield text[: at + 1] + end


def _lanes(events: list[Any]) -> tuple[dict[tuple[int, int], Lane], int]:
    lanes: dict[tuple[int, int], Lane] = defaultdict(Lane)
    bad = 0
    for event in events:
        try:
            _take(event, lanes)
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
            bad += 1
    return lanes, bad


def _merge_tasks(lanes: dict[tuple[int, int], Lane]) -> None:
    """viztracer's --log_async gives each asyncio task a lane of its own: put it back on the thread that ran it."""
    tasks = [key for key in lanes if key[1] > KERNEL_TIDS]
    for key in tasks:
        waiting = [lane for (pid, tid), lane in lanes.items() if pid == key[0] and tid <= KERNEL_TIDS and lane.waits()]
        if len(waiting) == 1:
            waiting[0].slices.extend(lanes.pop(key).slices)


def _take(event: dict[str, Any], lanes: dict[tuple[int, int], Lane]) -> None:
    phase = event["ph"]
    if phase not in ("X", "B", "E", "M"):
        return
    pid, tid = int(event["pid"]), int(event["tid"])
    if not (0 <= pid < 1 << 40 and 0 <= tid < 1 << 62):
        raise ValueError(event)
    lane = lanes[pid, tid]
    if phase == "M":
        if event["name"] == "thread_name":
            lane.name = str(event["args"]["name"])[:100]
    elif phase == "X":
        start_ns = _ns(event["ts"])
        into = lane.stalls if event.get("cat") == STALL else lane.slices
        into.append(Slice(start_ns, start_ns + _ns(event["dur"]), str(event["name"])))
    elif phase == "B":
        lane.begun.append((_ns(event["ts"]), str(event["name"])))
    elif lane.begun:
        start_ns, name = lane.begun.pop()
        lane.slices.append(Slice(start_ns, max(start_ns, _ns(event["ts"])), name))


def _ns(microseconds: Any) -> int:
    if isinstance(microseconds, bool) or not 0 <= microseconds < LONGEST_US:
        raise ValueError(microseconds)
    return round(float(microseconds) * 1000)


def _turns(slices: list[Slice]) -> Iterator[tuple[int, int]]:
    """The iterations of a thread, [began_ns, ended_ns)."""
    waits = _waits(slices)
    if waits:
        yield from ((before.end_ns, after.start_ns) for before, after in pairwise(waits))
    else:
        yield from ((one.start_ns, one.end_ns) for one in _outermost([one for one in slices if TURN.search(one.name)]))


def _waits(slices: list[Slice]) -> list[Slice]:
    for pattern in (SELECT, WAIT):
        if found := [one for one in slices if pattern.search(one.name)]:
            return _outermost(found)
    return []


def _outermost(slices: list[Slice]) -> list[Slice]:
    """Those that lie in no other (they come sorted by start; of two that start together the longer is the outer)."""
    outer: list[Slice] = []
    for one in sorted(slices, key=lambda one: (one.start_ns, -one.end_ns)):
        if not outer or one.start_ns >= outer[-1].end_ns:
            outer.append(one)
    return outer


def _loop(number: int, pid: int, tid: int, lane: Lane, turns: list[tuple[int, int]]) -> Loop:
    counts: dict[int, int] = defaultdict(int)
    for began_ns, ended_ns in turns:
        counts[bucket_of(ended_ns - began_ns)] += 1
    name = lane.name or f"thread {tid}"
    last_ns = max(one.end_ns for one in lane.slices)
    return Loop(number, number, pid, tid, "chrome", name, lane.slices[0].start_ns, last_ns, dict(counts))


def _stalls(number: int, slices: list[Slice], turns: list[tuple[int, int]], threshold_ns: int) -> Iterator[Stall]:
    at = 0
    for began_ns, ended_ns in turns:
        while at < len(slices) and slices[at].start_ns < began_ns:
            at += 1
        if ended_ns - began_ns < threshold_ns:
            continue
        inside = []
        for one in slices[at:]:
            if one.start_ns >= ended_ns:
                break
            if one.end_ns <= ended_ns and not MACHINERY.search(one.name):
                inside.append(one)
        yield Stall(number, began_ns, ended_ns - began_ns, handlers=_handlers(inside))


def _exported(number: int, stalls: list[Slice]) -> Iterator[Stall]:
    for one in stalls:
        duration_ns = one.end_ns - one.start_ns
        handlers = () if one.name == "stall" else (HandlerTime(Handler(one.name), 1, duration_ns),)
        yield Stall(number, one.start_ns, duration_ns, handlers=handlers)


def _handlers(slices: list[Slice]) -> tuple[HandlerTime, ...]:
    """The outermost functions of the user's, heaviest first."""
    sums: dict[str, list[int]] = {}
    for one in _outermost(slices):
        entry = sums.setdefault(one.name, [0, 0])
        entry[0] += 1
        entry[1] += one.end_ns - one.start_ns
    times = [HandlerTime(_handler(name), calls, total_ns) for name, (calls, total_ns) in sums.items()]
    return tuple(sorted(times, key=lambda time: -time.total_ns)[:HANDLERS_KEPT])


def _handler(name: str) -> Handler:
    place = PLACE.match(name)
    return Handler(place[1], place[2], int(place[3])) if place else Handler(name)
