"""asyncio's own lines in debug mode: `Executing <Handle …> took 0.105 seconds`.

A line is one handler of at least `loop.slow_callback_duration` (0.1 s by default): a stall at least as long, since the
iteration may have held other handlers.  Form: `BaseEventLoop._run_once` and `format_helpers` of CPython.
"""

from __future__ import annotations

import re

from stallscope.ingest.log_stamps import stamp_ns
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_ITERATIONS, loop_of, process_of, recording_of, unread
from stallscope.recording.nouns import Handler, HandlerTime, Missing, Recording, Stall

SLOW = re.compile(r"Executing <(.*)> took (\d{1,9}\.\d{3}) seconds\s*$")
LONGEST = 1000
TORN = re.compile(r"Executing <")
TASK_NAME = re.compile(r"\bname='([^']*)'")
COROUTINE = re.compile(r"\bcoro=<(?:<?async_generator_\w+ )?([\w.<>]+)(?:\(\))? [^<]*? at ([^<>]*?):(\d{1,7})>")
CALLBACK = re.compile(
    r"^\w*Handle (?:when=[\d.]+ )?(?:<function )?([\w.<>]+?)(?:\(.*?\))? at ([^<> ][^<>]*?):(\d{1,7})(?: created at|$)"
)
OTHER_CALLBACK = re.compile(r"^\w*Handle (?:when=[\d.]+ )?<?(?:bound method |built-in method )?([\w.<>]+)")
CREATED = re.compile(r" created at .*$")
LOWER_BOUND = Missing("stall lengths", "asyncio times one handler: its iteration lasted at least as long")
NO_CALLS = Missing("calls, resources and causes", "asyncio times handlers only")
FASTER = Missing(
    "stalls under slow_callback_duration", "asyncio reports handlers from loop.slow_callback_duration on (0.1 s)"
)


def recognises(head: str) -> bool:
    return any(SLOW.search(line) for line in head.splitlines())


def read(source: Source, threshold_ns: int) -> Recording:
    """One loop, whose stalls are the handlers reported."""
    stalls: list[Stall] = []
    torn = now_ns = first_ns = 0
    for line in source.lines():
        now_ns = stamp_ns(line) or now_ns
        first_ns = first_ns or now_ns
        if found := SLOW.search(line):
            duration_ns = int(found[2].replace(".", "")) * 1_000_000
            if duration_ns >= threshold_ns:
                stalls.append(_stall(found[1], duration_ns, now_ns))
        else:
            torn += TORN.search(line) is not None
    loop = loop_of(1, 0, "asyncio", "asyncio's log", first_ns, max(first_ns, now_ns))
    return recording_of(
        source,
        "asyncio-log",
        threshold_ns,
        loops=[loop],
        processes=[process_of(1, 0, "unnamed program", loop.opened_ns, loop.last_ns)],
        stalls=stalls,
        missing=[NO_ITERATIONS, LOWER_BOUND, FASTER, NO_CALLS],
        notes=unread(torn),
    )


def _stall(what: str, duration_ns: int, ended_ns: int) -> Stall:
    handler = handler_of(what)
    name = TASK_NAME.search(what)
    start_ns = max(0, ended_ns - duration_ns)
    handlers = (HandlerTime(handler, 1, duration_ns),)
    return Stall(1, start_ns, duration_ns, task=name[1] if name else None, handlers=handlers, current=handler)


def handler_of(what: str) -> Handler:
    """The handler in asyncio's description of a Handle, TimerHandle or Task (without the angle brackets)."""
    what = what[:LONGEST]  # arguments may be long, and come after the handler
    found = COROUTINE.search(what) or CALLBACK.search(what)
    if found:
        return Handler(found[1], found[2], int(found[3]))
    other = OTHER_CALLBACK.search(what)
    return Handler(other[1] if other else CREATED.sub("", what)[:200])
