"""`perf trace` text: `start_ms ( duration_ms): [program/tid ]name(arguments) = result`.

Form: perf-trace(1) of Linux 6.1, and captures made with it.  A call that another thread's line interrupted comes
in two, `… ...` and `… [continued]: name()) = result`; the second half has the start and the whole duration.

As with strace, one regular expression passes over a megabyte at a time and stops at waits, at calls that change
descriptors, and at what is not a whole line; the rest is read for stalls only.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from stallscope.ingest.calls import POLL_WAITS, WAITS, Describer, one_of, watches_several
from stallscope.ingest.descriptors import CHANGES, DESCRIPTOR, MAKERS, OPENERS
from stallscope.ingest.rebuild import POLL, SHORT_NS, Evidence, Rebuild, Thread
from stallscope.ingest.recurring import Recurring
from stallscope.ingest.refusals import refuse_selections
from stallscope.ingest.source import Source
from stallscope.ingest.stops import stops
from stallscope.ingest.verdicts import NO_HANDLERS, plural, take_all, unread
from stallscope.ingest.window import Window, count_by, last_line
from stallscope.recording.nouns import Call, Missing, Recording, Resource

LINE = re.compile(
    rb" *(?:\?|(\d{1,13}\.\d{3})) \( *(?:(\d{1,14}\.\d{3}) ms| *)\): "
    rb"(?:([^(]{0,16}/\d{1,10}) +)?"
    rb"(?: ?\.\.\. \[continued\]: (\w+)\(\)\) += (.*)|(\w+)\((.*?)(?:\) += ([^=]*)|\)? +\.\.\.))$"
)
DIGEST = re.compile(
    rb" *(?:\?|(\d{1,13}\.\d{3})) \( *(?:(\d{1,14}\.\d{3}) ms| *)\): (?:([^(]{0,16}/\d{1,10}) +)?"
    rb"(?:(\w+)\((.*)\) += ([^=]*)| ?\.\.\. \[continued\]: (\w+)\(\)\) += (.*)|(\w+)\((.*?)\)? +\.\.\.)"
)
"""The same, the common kind first."""
_TELLING = one_of({*WAITS, *MAKERS, *CHANGES, "close"} - {"fcntl", "poll", "ppoll"})
_SOME = rb"fcntl\([^\n]*DUPFD|p?poll\((?![^\n]*nfds: 1[,)])"
"""Calls of these names tell something now and then: poll() not, where it waits for one descriptor only."""
_FRAME = b" " * 30
"""A line that begins so is of a call's stack (--call-graph)."""
_RETURNS = rb"\) ++= [^\n=]*+"
"""Linux 6.1 prints nothing for what wait4() returns when no child has changed."""
SANE = 14
"""Digits of a duration; a clock that went backwards gives one of 5,800 years."""
WAITED, MADE, CLOSED = 7, 11, 12
"""The last group of a match of `_scan` (`Match.lastindex`)."""
_ALL, _NONE, _SOME_OF_THEM = rb"([^(\n]{0,16}/\d{1,10}+) ++", rb"()", rb"(?:([^(\n]{0,16}/\d{1,10}+) ++)?"
"""Who makes a call, where every line says so, none, or only some (perf names a thread where it traces several)."""


def _who(head: bytes) -> bytes:
    lines = [found for line in head.splitlines()[:-1] if (found := LINE.fullmatch(line[:LONGEST]))]
    named = sum(found[3] is not None for found in lines)
    return _ALL if 0 < named == len(lines) else _SOME_OF_THEM if named or not lines else _NONE


@cache
def _scan(who: bytes) -> re.Pattern[bytes]:
    """Stops at waits, at calls that change descriptors, and at what is not a whole line.

    Groups: where the line begins, start, duration and thread; of a wait its descriptor, timeout, if any, and result;
    of a call that makes a descriptor name, arguments, result and what follows it; of close() the descriptor; and any
    other line that tells something.
    """
    silent = who.replace(b"([", b"(?:[").replace(b"()", b"")
    return stops(
        # A finished call that neither ends an iteration nor changes a descriptor is passed over (what follows `[^\n]*`
        # is a literal each time, to which the engine jumps back; a choice there took twice as long) …
        _FRAME + rb"[^\n]*+\n| *+\d{1,13}+\.\d{3} \( *+(?:\d{1,10}+\.\d{3} ms)?+\): " + silent + rb"(?:"
        rb"(?!" + _TELLING + rb"|" + _SOME + rb")\w++\((?:[^\n]*" + _RETURNS + rb"\n|[^\n]* \.\.\.\n)|"
        rb" ?\.\.\. \[continued\]: (?!" + _TELLING + rb"|p?poll\()\w++\(\)" + _RETURNS + rb"\n|" +
        one_of(MAKERS) + rb"[^\n]*\) ++= -[^\n=]*+\n)",
        # … and what comes by the thousand is read at once.
        rb"() *+(\d{1,13}+\.\d{3}) \( *+(\d{1,10}+\.\d{3}) ms\): " + who + rb"(?:"
        rb"epoll_p?wait\(epfd: (\d{1,9}+)(?:<[^>\n]*+>)?+, events: 0x\w++, maxevents: \d{1,10}+"
        rb"(, timeout: [1-9x]\d*+)?+(?:, sigsetsize: 8)?+\) ++= -?(\d++)|"
        rb"(" + one_of(MAKERS).removesuffix(b"\\(") + rb")\(([^\n]*)\) ++= (\d{1,9}+)([^\n=]*+)|"
        rb"close\(fd: (\d{1,9}+)[^\n]*\) ++= 0)\n",
    )  # fmt: skip


THREADS = re.compile(rb"\): ([^(\n]{0,16}/\d{1,10}) ")
OTHER = re.compile(rb"\): (?:\S{1,16}/\d{1,10} +)?(?:(?:maj|min)fault \[|[a-z_0-9]{1,40}:[a-z_0-9]{1,60}\()")
LONGEST = 8192
"""perf prints no longer line; a pattern with two open ends must not meet one."""
LOST = re.compile(rb"LOST (\d{1,12}) events")
NO_CPU = Missing("causes between calls", "perf trace sees calls only, not CPU time, run queue or locks in user space")
TIMEOUT = re.compile(r"timeout(?:_msecs)?: [1-9x]")
"""perf leaves out arguments that are zero: a wait without a timeout has one of zero."""


def recognises(head: str) -> bool:
    lines = [line for line in head.encode("utf-8", "replace").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_FRAME)][:60]
    ours = sum(LINE.fullmatch(line) is not None or OTHER.search(line) is not None for line in lines)
    return ours >= 1 and 2 * ours >= len(lines[:-1])


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that waits for events again and again."""
    refuse_selections(source)
    reader = Reader(threshold_ns, source.head)
    cut = take_all(reader, source)
    reader.finish()
    notes = unread(reader.unread, cut)
    if reader.lost:
        notes.append(f"perf lost {plural(reader.lost, 'event')}: iterations during which it did were left out")
    return reader.rebuild.recording(
        source, "perf-trace", reader.now_ns, [NO_HANDLERS, NO_CPU], notes, reader.window.lines
    )


class Reader:
    """The state of one pass."""

    def __init__(self, threshold_ns: int, head: bytes) -> None:
        self.scan = _scan(_who(head))
        self.rebuild = Rebuild(threshold_ns, self._digest)
        self.window = Window()
        self.threads: dict[bytes, Thread] = {}
        self.lines: Counter[bytes] = Counter()
        """By thread."""
        self.begun: dict[Thread, str] = {}
        """Arguments of the calls whose second half is still to come."""
        self.numbers, self.times_ns = Recurring(int), Recurring(_ns)
        self.now_ns = 0
        self.unread = self.lost = 0

    def take(self, chunk: bytes) -> None:
        """A chunk of whole lines."""
        base = self.window.add(chunk)
        text = chunk if chunk.endswith(b"\n") else chunk + b"\n"
        self.lines.update(count_by(THREADS, b"): ", b" ", text, self.window.added, self.lines))
        for found in self.scan.finditer(text):
            kind = found.lastindex
            if kind == WAITED:
                self._waited(found, base)
            elif kind == MADE:
                self._made(found, base)
            elif kind == CLOSED:
                who, descriptor = found.group(4, 12)
                self._thread(who).image.descriptors.closed(self.numbers[descriptor], base + found.start(1))
            elif kind is not None:
                self._parse(found[kind], base + found.start(kind))
        if last := LINE.fullmatch(last_line(text, _FRAME)[:LONGEST]):
            self._seen(last)

    def _seen(self, line: re.Match[bytes]) -> None:
        if line[1] and line[2] and len(line[2]) <= SANE:
            self.now_ns = max(self.now_ns, _ns(line[1]) + _ns(line[2]))

    def _waited(self, found: re.Match[bytes], base: int) -> None:
        """A whole epoll_wait()."""
        start, took, who, descriptor, timeout = found.group(2, 3, 4, 5, 6)
        thread = self.threads.get(who or b"") or self._thread(who)
        start_ns = int(start.replace(b".", b"")) * 1000
        if thread.first_ns is None:
            thread.first_ns = start_ns
        thread.turn(self.numbers[descriptor], start_ns, start_ns + self.times_ns[took], timeout is None, found, base)

    def _made(self, found: re.Match[bytes], base: int) -> None:
        """A call that made a descriptor."""
        who, name, arguments, number, after = found.group(4, 8, 9, 10, 11)
        thread = self.threads.get(who or b"") or self._thread(who)
        thread.image.descriptors.made(self.numbers[number], base + found.start(1), (name, arguments, after))

    def _parse(self, line: bytes, at: int) -> None:
        found = LINE.fullmatch(line) if len(line) <= LONGEST else None
        if not found:
            self._not_a_call(line)
            return
        thread = self._thread(found[3])
        name = _text(found[4] or found[6])
        if name not in WAITS and name not in CHANGES:
            return
        arguments = _text(found[7]) if found[4] is None else self.begun.pop(thread, "")
        result = found[5] or found[8]
        if found[1] is None or found[2] is None:  # the first half, or a call that began before the trace
            if result is None:
                self.begun[thread] = arguments
            return
        self._seen(found)
        self._call(thread, name, arguments, _text(result), _ns(found[1]), _ns(found[2]), at, at + len(line))

    def _call(
        self, thread: Thread, name: str, arguments: str, result: str, start_ns: int, took_ns: int, at: int, end: int
    ) -> None:
        if thread.first_ns is None:
            thread.first_ns = start_ns
        if name in CHANGES:
            thread.image.descriptors.observe(name, arguments, result, at)
        elif _enter(thread, name, arguments, start_ns, at):
            thread.leave_wait(start_ns + took_ns, TIMEOUT.search(arguments) is None, end)

    def _not_a_call(self, line: bytes) -> None:
        if lost := LOST.search(line):
            self.lost += int(lost[1])
        elif len(line) <= LONGEST and OTHER.search(line):
            return  # an event of another kind, such as a page fault
        else:
            self.unread += 1
        self.rebuild.gap()
        self.begun.clear()

    def _thread(self, who: bytes | None) -> Thread:
        who = who or b""
        thread = self.threads.get(who)
        if thread is None:
            program, _, tid = who.decode("utf-8", "replace").rpartition("/")
            thread = self._renamed(int(tid or 0)) or self.rebuild.thread(int(tid or 0))
            thread.image.program = program.strip().removeprefix(":")
            self.threads[who] = thread
        return thread

    def _renamed(self, tid: int) -> Thread | None:
        """A thread that got its name after its first line (`:19413/19413`, then `python3/19413`)."""
        return next((thread for thread in self.rebuild.threads if tid and thread.tid == tid), None)

    def finish(self) -> None:
        """Threads of whom nothing told."""
        for who, count in self.lines.items():
            self._thread(who).lines += count

    def _digest(self, thread: Thread, begin: int, end: int) -> Evidence:
        """The calls of a thread between two positions."""
        evidence, describer, arguments = Evidence(), Describer(thread.image.descriptors), b""
        tokens = [b"): %s " % who if who else b"" for who, other in self.threads.items() if other is thread]
        base, text = self.window.text(begin, end)
        at = base
        for line in text.split(b"\n"):
            mine = any(token in line for token in tokens)
            found = DIGEST.fullmatch(line) if mine and len(line) <= LONGEST else None
            at += len(line) + 1
            if not found or self.threads.get(found[3] or b"") is not thread:
                continue
            if found[9]:
                arguments = found[10]  # of the first half
            elif found[1] and found[2]:
                call = describer.describe(found[4] or found[7], found[5] or arguments, at)
                took_ns = _ns(found[2])
                if took_ns >= SHORT_NS and call.name in OPENERS and call.resource is None:
                    call = _opened(call, found[6] or found[8], text[at - base :])
                evidence.add(_ns(found[1]), took_ns, call)
        return evidence


def _opened(call: Call, result: bytes, rest: bytes) -> Call:
    """A long open() with the path of the first later call on its descriptor: perf does not print it with open()."""
    used = re.search(rb"\(fd: " + re.escape(result.strip()) + rb"<(/[^>\n]*)>", rest)
    return Call(call.name, Resource("path", _text(used[1])) if used else None, f"fd {_text(result)}")


def _enter(thread: Thread, name: str, arguments: str, at_ns: int, at: int) -> bool:
    if name in POLL_WAITS:
        return watches_several(arguments) and thread.enter_wait(POLL, at_ns, at)
    descriptor = DESCRIPTOR.match(arguments)
    if descriptor is None:  # perf leaves out what is zero, and what it missed
        return thread.key is not None and thread.key != POLL and thread.enter_wait(thread.key, at_ns, at)
    return thread.enter_wait(int(descriptor[1]), at_ns, at)


def _text(data: bytes | None) -> str:
    return data.decode("utf-8", "replace") if data else ""


def _ns(milliseconds: bytes) -> int:
    return int(milliseconds.replace(b".", b"")) * 1_000
