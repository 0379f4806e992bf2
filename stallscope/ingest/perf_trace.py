"""`perf trace` text: `start_ms ( duration_ms): [program/tid ]name(arguments) = result`.

Form: perf-trace(1) of Linux 6.1, and captures made with it.  A call that another thread's line interrupted comes
in two, `… ...` and `… [continued]: name()) = result`; the second half has the start and the whole duration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter

from stallscope.ingest.calls import POLL_WAITS, WAITS, describe, watches_several
from stallscope.ingest.descriptors import CHANGES, DESCRIPTOR, OPENERS
from stallscope.ingest.rebuild import LINES_KEPT, POLL, Rebuild, Thread
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_HANDLERS, plural, unread
from stallscope.recording.nouns import Call, Missing, Recording, Resource, TimedCall

LINE = re.compile(
    rb" *(?:\?|(\d{1,13}\.\d{3})) \( *(?:(\d{1,10}\.\d{3}) ms| *)\): "
    rb"(?:([^(]{0,16}/\d{1,10}) +)?"
    rb"(?: ?\.\.\. \[continued\]: (\w+)\(\)\) += (.+)|(\w+)\((.*?)(?:\) += ([^=]+)|\)? +\.\.\.))$"
)
OTHER = re.compile(rb"\): (?:\S{1,16}/\d{1,10} +)?(?:(?:maj|min)fault \[|[a-z_0-9]{1,40}:[a-z_0-9]{1,60}\()")
SHORT = b" 0."
LONGEST = 8192
"""perf prints no longer line; a pattern with two open ends must not meet one."""
LOST = re.compile(rb"LOST (\d{1,12}) events")
PARSED = {name.encode() for name in {*CHANGES, *WAITS}}
NO_CPU = Missing("causes between calls", "perf trace sees calls only, not CPU time, run queue or locks in user space")
ZERO_TIMEOUT = re.compile(r"timeout(?:_msecs)?: [1-9x]")
"""perf leaves out arguments that are zero: a wait without a timeout has one of zero."""


def recognises(head: str) -> bool:
    lines = [line for line in head.encode("utf-8", "replace").splitlines()[:60] if line.strip()]
    ours = sum(LINE.fullmatch(line) is not None for line in lines)
    return ours >= 1 and 2 * ours >= len(lines[:-1])


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that waits for events again and again."""
    reader = Reader(threshold_ns)
    for chunk in source.chunks():
        reader.take(chunk)
    notes = unread(reader.unread)
    if reader.lost:
        notes.append(f"perf lost {plural(reader.lost, 'event')}: iterations during which it did were left out")
    return reader.rebuild.recording(source, "perf-trace", reader.now_ns, [NO_HANDLERS, NO_CPU], notes)


class Reader:
    """The state of one pass."""

    def __init__(self, threshold_ns: int) -> None:
        self.rebuild = Rebuild(threshold_ns, _digest)
        self.threads: dict[bytes, Thread] = {}
        self.begun: dict[Thread, str] = {}
        """Arguments of the calls whose second half is still to come."""
        self.now_ns = 0
        self.unread = self.lost = 0

    def take(self, chunk: bytes) -> None:
        """Every line of a chunk: a short call is kept as it is, all else is parsed."""
        threads = self.threads
        for line in chunk.split(b"\n"):
            head, _, rest = line.partition(b" ms): ")
            call, entered, _ = rest.partition(b"(")
            who, _, name = call.rpartition(b" ")
            thread = threads.get(who)
            if thread is not None and entered and head[-6:-3] == SHORT and name and name not in PARSED:
                if thread.returned_ns is not None and len(thread.lines) < LINES_KEPT:
                    thread.lines.append(line)
            elif line:
                self._parse(line)

    def _parse(self, line: bytes) -> None:
        found = LINE.fullmatch(line) if len(line) <= LONGEST else None
        if not found:
            self._not_a_call(line)
            return
        thread = self._thread(found[3] or b"")
        continued = found[4] is not None
        name = (found[4] or found[6]).decode()
        arguments = self.begun.pop(thread, "") if continued else found[7].decode("utf-8", "replace")
        result = found[5] or found[8]
        if found[1] is None or found[2] is None:  # the first half, or a call that began before the trace
            if result is None:
                self.begun[thread] = arguments
            return
        self._call(thread, name, arguments, _text(result), _ns(found[1]), _ns(found[2]))

    def _call(self, thread: Thread, name: str, arguments: str, result: str, start_ns: int, duration_ns: int) -> None:
        if thread.first_ns is None:
            thread.first_ns = start_ns
        self.now_ns = max(self.now_ns, start_ns + duration_ns)
        if name in WAITS and _enter(thread, name, arguments, start_ns):
            thread.leave_wait(start_ns + duration_ns, ZERO_TIMEOUT.search(arguments) is None)
        else:
            call = describe(name, arguments, thread.image.descriptors)
            thread.call(start_ns, duration_ns, replace(call, detail=f"fd {result}") if name in OPENERS else call)
        if name in CHANGES:
            thread.image.descriptors.observe(name, arguments, result)

    def _not_a_call(self, line: bytes) -> None:
        if lost := LOST.search(line):
            self.lost += int(lost[1])
        elif len(line) <= LONGEST and OTHER.search(line):
            return  # an event of another kind, such as a page fault
        else:
            self.unread += 1
        for thread in self.threads.values():
            thread.forget_iteration()

    def _thread(self, who: bytes) -> Thread:
        thread = self.threads.get(who)
        if thread is None:
            program, _, tid = who.decode("utf-8", "replace").rpartition("/")
            thread = self._renamed(int(tid or 0), program) or self.rebuild.thread(int(tid or 0))
            thread.image.program = program.strip().removeprefix(":")
            self.threads[who] = thread
        return thread

    def _renamed(self, tid: int, program: str) -> Thread | None:
        """A thread that got its name after its first line (`:19413/19413`, then `python3/19413`)."""
        return next((thread for thread in self.rebuild.threads if tid and thread.tid == tid), None)


def _enter(thread: Thread, name: str, arguments: str, at_ns: int) -> bool:
    if name in POLL_WAITS:
        return watches_several(arguments) and thread.enter_wait(POLL, at_ns)
    descriptor = DESCRIPTOR.match(arguments)
    if descriptor is None:  # perf leaves out what is zero, and what it missed
        return thread.key is not None and thread.key != POLL and thread.enter_wait(thread.key, at_ns)
    return thread.enter_wait(int(descriptor[1]), at_ns)


def _digest(thread: Thread, lines: list[bytes]) -> Iterator[tuple[int, Call]]:
    """The short calls; besides, the paths of long open() calls, which perf prints with later calls only."""
    mentions = [(call.start_ns, call.call.detail, call.call.resource) for call in thread.calls]
    for line in lines:
        found = LINE.fullmatch(line)
        if found and found[1] and found[2] and found[6]:
            call = describe(found[6].decode(), _text(found[7]), thread.image.descriptors)
            mentions.append((_ns(found[1]), call.detail, call.resource))
            yield _ns(found[2]), call
    thread.calls = [_with_path(call, mentions) if call.call.name in OPENERS else call for call in thread.calls]


def _with_path(opened: TimedCall, mentions: list[tuple[int, str, Resource | None]]) -> TimedCall:
    """An open() with the path of the first later call on its descriptor."""
    later = [
        (at_ns, resource)
        for at_ns, detail, resource in mentions
        if at_ns > opened.start_ns and detail == opened.call.detail and resource and resource.kind == "path"
    ]
    if opened.call.resource or not later:
        return opened
    return replace(opened, call=replace(opened.call, resource=min(later, key=itemgetter(0))[1]))


def _text(data: bytes | None) -> str:
    return data.decode("utf-8", "replace") if data else ""


def _ns(milliseconds: bytes) -> int:
    whole, _, thousandths = milliseconds.partition(b".")
    return int(whole) * 1_000_000 + int(thousandths) * 1_000
