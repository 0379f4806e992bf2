"""`perf script` of the tracepoints `raw_syscalls:*` or `syscalls:*`, with or without the scheduler's.

Form: `program tid [cpu] seconds: event: fields`, captured with Linux 6.1 and 6.18.  The tracepoints hold numbers only:
no path and no peer, so a call's resource is its descriptor.  raw_syscalls names calls by their number on x86-64.

As with strace, one regular expression passes over a megabyte at a time and stops at waits, and at what is no event;
the rest is read for stalls only, and then its entries and exits must pair: where they do not, perf has lost events.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

from stallscope.errors import UnreadableInput
from stallscope.ingest.calls import POLL_WAITS, WAITS, Describer
from stallscope.ingest.perf_events import LOST, PREFIX, at_ns_of, ns_of, program_of
from stallscope.ingest.rebuild import POLL, Evidence, Rebuild, Thread
from stallscope.ingest.recurring import Recurring
from stallscope.ingest.run_queue import RunQueue
from stallscope.ingest.source import Source
from stallscope.ingest.stops import stops
from stallscope.ingest.syscall_numbers import NAMES
from stallscope.ingest.verdicts import NO_HANDLERS, plural, take_all, unread
from stallscope.ingest.window import Window, count_by
from stallscope.recording.nouns import Missing, Recording

NUMBERS = {name: number for number, name in NAMES.items()}
_WAIT_NUMBERS = "|".join(str(NUMBERS[name]) for name in sorted(WAITS) if name in NUMBERS).encode()
_WAIT_NAMES = "|".join(sorted(WAITS)).encode()
EVENT = re.compile(
    PREFIX + rb"(?:raw_syscalls:sys_(?:enter: NR (\d{1,4}) \(([0-9a-f, ]*)\)|exit: NR (-1|\d{1,4}) = (-?\d{1,20}))|"
    rb"syscalls:sys_(?:enter_(\w+): ?(.*)|exit_(\w+): (0x[0-9a-f]{1,16}))|((?!raw_syscalls:|syscalls:)\w+:\w+):.*)"
)
PAIR = re.compile(
    rb"^([^\[\n]{1,60})\[\d{1,5}\] +\d{1,10}\.\d{6,9}: +"
    rb"(?:raw_syscalls:sys_enter: NR (\d{1,4}) \([0-9a-f, ]*\)|syscalls:sys_enter_(\w+):[^\n]*)\n"
    rb"\1\[\d{1,5}\] +\d{1,10}\.\d{6,9}: +"
    rb"(?:raw_syscalls:sys_exit: NR \2 = -?\d{1,20}|syscalls:sys_exit_\3: 0x[0-9a-f]{1,16})\n",
    re.MULTILINE,
)
"""An entry, and its exit in the next line."""
SCAN = stops(
    # An event that is no wait's is passed over …
    rb"[^\[\n]{1,60}+\[\d{1,5}+\] ++\d{1,10}+\.\d{6,9}+: ++(?:raw_syscalls:sys_(?:"
    rb"enter: NR (?!(?:" + _WAIT_NUMBERS + rb") )\d{1,4}+ \([^\n]*\)\n|"
    rb"exit: NR (?!(?:" + _WAIT_NUMBERS + rb") )(?:-1|\d{1,4}+) = -?\d{1,20}+\n)|"
    rb"syscalls:sys_(?:enter_(?!(?:" + _WAIT_NAMES + rb"):)\w++:[^\n]*+\n|"
    rb"exit_(?!(?:" + _WAIT_NAMES + rb"):)\w++: 0x[0-9a-f]{1,16}+\n)|"
    rb"(?!raw_syscalls:|syscalls:)\w++:\w++:[^\n]*+\n)",
    # … and the common waits are read at once, both events where nothing came between them.
    PREFIX + rb"(?:"
    rb"raw_syscalls:sys_enter: NR (232|281) "
    rb"\(([0-9a-f]{1,8}+), [0-9a-f]++, [0-9a-f]++, (?:(0)(?=,)|[0-9a-f]++), [0-9a-f, ]*+\)\n"
    rb"(?:\1[ /]\2 ++\[\d{1,5}+\] ++(\d{1,10}+\.\d{6,9}+): ++raw_syscalls:sys_exit: NR \4 = (?!-51[2-6]\n)-?\d++\n)?()|"
    rb"syscalls:sys_enter_(epoll_p?wait): epfd: 0x([0-9a-f]{8}), events: 0x[0-9a-f]++, maxevents: 0x[0-9a-f]{8}, "
    rb"timeout: 0x(?:(0{8}(?:0{8})?(?![0-9a-f]))|[0-9a-f]{8,16}+)(?:, [^\n]*+)?\n"
    rb"(?:\1[ /]\2 ++\[\d{1,5}+\] ++(\d{1,10}+\.\d{6,9}+): ++syscalls:sys_exit_\9: 0x[0-9a-f]++\n)?()|"
    rb"(?:raw_syscalls:sys_exit: NR (232|281) = (?!-51[2-6]\n)-?\d++\n|"
    rb"syscalls:sys_exit_(epoll_p?wait): 0x[0-9a-f]++\n))",
)
"""Groups: program, thread, seconds; of an entry number, descriptor, `0` for a timeout of zero, seconds of its exit (if
that comes next), and nothing, or name and the same; of an exit number or name; and any other line that matters."""
RAW_ENTRY, ENTRY, RAW_EXIT, EXIT = 8, 13, 14, 15
"""The last group of each (`Match.lastindex`)."""
FIRST = re.compile(rb"(?:\w+: 0x)?([0-9a-f]{1,16})(?![0-9a-z])")
RESTARTS = re.compile(rb"-51[2-6]")
_WAIT_OF = {b"232": "epoll_wait", b"281": "epoll_pwait", b"epoll_wait": "epoll_wait", b"epoll_pwait": "epoll_pwait"}
SIGRETURN = b"-1"
"""The number with which rt_sigreturn() is left: that of no call."""
THREADS = re.compile(rb"\n([^\[\n]{1,60})\[")
TIMEOUT_AT = {"epoll_wait": 3, "epoll_pwait": 3, "poll": 2}
OTHER_MACHINE = re.compile(r"^# arch : (?!x86_64|amd64)(\S+)", re.MULTILINE)
NO_NAMES = Missing(
    "paths and peers", "the tracepoints hold descriptors and pointers only; use perf trace or strace -yy"
)
NO_CPU = Missing(
    "causes between calls", "these tracepoints show calls only, not CPU time, run queue or locks in user space"
)
NO_CODE = Missing("what ran between calls", "the scheduler's events tell when a thread ran, not which code")
NO_DELAYS = Missing(
    "some run-queue delays", "perf recorded the program's own events, not the switches back to it: record with -a"
)
FAILED = 1 << 63
LINES_KEPT = 100_000
"""Of one iteration, from before the window."""


def recognises(head: str) -> bool:
    return re.search(r"^ *\S.{0,31}? +\d+ +\[\d+\] +\d+\.\d+: +(?:raw_)?syscalls:sys_e", head, re.MULTILINE) is not None


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that waits for events again and again."""
    if machine := OTHER_MACHINE.search(source.head.decode("utf-8", "replace")):
        raise UnreadableInput(
            f"{source.name} was recorded on {machine[1]}, whose call numbers stallscope does not know: record "
            "'syscalls:*' instead of 'raw_syscalls:*'."
        )
    reader = Reader(threshold_ns)
    cut = take_all(reader, source)
    reader.finish()
    missing = [NO_HANDLERS, NO_NAMES, NO_CODE if reader.scheduled else NO_CPU, *[NO_DELAYS] * reader.blind]
    notes = unread(reader.unread, cut)
    if reader.lost:
        notes.append(f"perf lost {plural(reader.lost, 'event')}: iterations during which it did were left out")
    return reader.rebuild.recording(source, "perf-script", reader.now_ns, missing, notes, reader.window.lines)


class Reader:
    """The state of one pass."""

    def __init__(self, threshold_ns: int) -> None:
        self.rebuild = Rebuild(threshold_ns, self._digest, self._lacks_halves)
        self.window = Window(self._keep_open)
        self.kept: dict[Thread, tuple[int, list[bytes]]] = {}
        """Of iterations that began before the window: where, and their lines."""
        self.threads: dict[bytes, Thread] = {}
        self.lines: Counter[bytes] = Counter()
        """By what stands before the processor."""
        self.begun: dict[Thread, tuple[str, bool, bool]] = {}
        """Waits in progress: name, whether it is the loop's, and whether its timeout is zero."""
        self.descriptors = Recurring(partial(int, base=16))
        self.now_ns = 0
        self.unread = self.lost = 0
        self.scheduled = self.blind = False
        """Whether the scheduler's events are there; whether those are missing that bring a thread back to a CPU."""

    def take(self, chunk: bytes) -> None:
        """A chunk of whole lines."""
        base = self.window.add(chunk) - 1  # of the text, which begins with a line feed
        text = b"\n" + chunk if chunk.endswith(b"\n") else b"\n" + chunk + b"\n"
        self.lines.update(count_by(THREADS, b"\n", b"[", text, self.window.added, self.lines))
        self.scheduled = self.scheduled or b" sched:sched_switch:" in text
        for found in SCAN.finditer(text, 1):
            kind = found.lastindex
            if kind in (RAW_ENTRY, ENTRY):
                self._entered(found, kind, base)
            elif kind in (RAW_EXIT, EXIT):
                self._exit(self._thread(found), at_ns_of(found), _WAIT_OF[found[kind]], base + found.end())
            elif kind is not None:
                self._parse(found[kind], base + found.start(kind))
        if last := EVENT.match(text, text.rfind(b"\n", 0, -1) + 1):
            self.now_ns = at_ns_of(last)

    def _entered(self, found: re.Match[bytes], kind: int, base: int) -> None:
        """A loop's usual wait begins, and may be over in the next line."""
        token, entered, name, descriptor, zero, left = found.group(2, 3, kind - 4, kind - 3, kind - 2, kind - 1)
        thread, key = self.threads.get(token) or self._thread(found), self.descriptors[descriptor]
        if left is not None:
            if self.begun:
                self.begun.pop(thread, None)
            thread.turn(key, ns_of(entered), ns_of(left), zero is not None, found, base)
        else:
            waits = thread.enter_wait(key, ns_of(entered), base + found.start(1))
            self.begun[thread] = _WAIT_OF[name], waits, zero is not None

    def _parse(self, line: bytes, at: int) -> None:
        found = EVENT.fullmatch(line)
        if found:
            self._event(found, at)
        elif lost := LOST.search(line):
            self.lost += int(lost[1])
            self._gap()
        elif line.strip(b"\r") and line[:1] not in b"#\t":
            self._torn()

    def _torn(self) -> None:
        """A line that may have hidden a wait: nothing in progress can be timed any more."""
        self.unread += 1
        self._gap()

    def _gap(self) -> None:
        self.rebuild.gap()
        self.begun.clear()

    def _event(self, found: re.Match[bytes], at: int) -> None:
        """A wait of a rarer kind."""
        name = _name(found)
        if name not in WAITS:
            return
        thread, at_ns = self._thread(found), at_ns_of(found)
        if found[6] or found[10]:
            if RESTARTS.fullmatch(found[7] or b""):
                thread.forget_iteration()  # a signal: the wait goes on in restart_syscall()
                self.begun.pop(thread, None)
            else:
                self._exit(thread, at_ns, name, at + len(found[0]))
            return
        values = _values(found)
        if len(values) < 2:
            self._torn()
            return
        position = TIMEOUT_AT.get(name)
        polls = position is not None and values[position : position + 1] == [0]
        waits = _several(name, values) and thread.enter_wait(_key(name, values), at_ns, at)
        self.begun[thread] = name, waits, polls

    def _exit(self, thread: Thread, at_ns: int, name: str, end: int) -> None:
        begun = self.begun.pop(thread, None)
        if begun is None or begun[0] != name:  # it began before the trace, or its other half was lost
            thread.forget_iteration()
        elif begun[1]:
            thread.leave_wait(at_ns, begun[2], end)

    def _thread(self, found: re.Match[bytes]) -> Thread:
        thread = self.threads.get(found[2])
        if thread is None:
            thread = self.threads[found[2]] = self.rebuild.thread(int(found[2]))
            thread.image.program = program_of(found)
            thread.first_ns = at_ns_of(found)
        return thread

    def _keep_open(self, start: int, block: bytes) -> None:
        """Put by the lines of iterations in progress: on a busy machine a stall lasts for tens of megabytes."""
        for token, thread in self.threads.items():
            if thread.returned_ns is None or thread.since >= start + len(block):
                continue
            since, lines = self.kept.get(thread, (-1, []))
            if since != thread.since:
                since, lines = self.kept[thread] = thread.since, []
            if len(lines) < LINES_KEPT:
                text = block[max(0, since - start) :]
                lines += [line for line in text.split(b"\n") if token in line]

    def _text(self, thread: Thread, begin: int, end: int) -> bytes:
        """The lines between two positions, of this thread at least."""
        since, lines = self.kept.pop(thread, (-1, []))
        return b"".join([*(line + b"\n" for line in lines if since == begin), self.window.text(begin, end)[1]])

    def finish(self) -> None:
        """Threads of whom nothing told."""
        for begin, count in self.lines.items():
            if number := re.search(rb"[ /](\d{1,10}) +$", begin):
                thread = self.threads.get(number[1]) or self.threads.setdefault(
                    number[1], self.rebuild.thread(int(number[1]))
                )
                thread.lines += count

    def _lacks_halves(self, thread: Thread, begin: int, end: int) -> bool:
        """Whether calls between two positions lack one half; most often a glance tells that none does."""
        text = self._text(thread, begin, end)
        return 2 * len(PAIR.findall(text)) != text.count(b"\n") and self._read(thread, text, end).torn

    def _digest(self, thread: Thread, begin: int, end: int) -> Evidence:
        """The calls of a thread between two positions, and when it waited for a CPU."""
        return self._read(thread, self._text(thread, begin, end), end)

    def _read(self, thread: Thread, text: bytes, end: int) -> Evidence:
        evidence, describer, queue = Evidence(), Describer(thread.image.descriptors), RunQueue(thread.tid)
        token = str(thread.tid).encode()
        first: tuple[int, str, bytes] | None = None
        for line in text.split(b"\n"):
            if token not in line or not (found := EVENT.fullmatch(line)):
                continue
            at_ns, name = at_ns_of(found), _name(found)
            if name and found[2] == token:
                self.blind |= not queue.runs()
            if not name:
                queue.take(line, at_ns)
            elif found[2] == token and (found[4] or found[8]):
                evidence.torn |= first is not None
                first = at_ns, name, _first_argument(found)
            elif found[2] == token:
                evidence.torn |= found[6] != SIGRETURN and (first is None or first[1] != name)
                if first is not None:
                    call = describer.describe(name.encode(), first[2], end)
                    evidence.add(first[0], at_ns - first[0], call)
                first = None
        evidence.torn |= first is not None
        self.blind |= not queue.runs()
        queue.tell(evidence)
        return evidence


def _name(found: re.Match[bytes]) -> str:
    """The call of an event; empty for one of another kind."""
    if number := found[4] or found[6]:
        return NAMES.get(int(number)) or f"call {int(number)}"
    return (found[8] or found[10] or b"").decode()


def _values(found: re.Match[bytes]) -> list[int]:
    return _numbers(found[5].decode(), 16) if found[4] else _numbers(found[9].decode("utf-8", "replace"), 0)


def _first_argument(found: re.Match[bytes]) -> bytes:
    """In decimal, as a descriptor is written; these tracepoints tell no more of what a call touched."""
    first = FIRST.match(found[5] if found[4] else found[9])
    raw = first[1] if first else b"0"
    value = int(raw, 16)
    return b"%d" % (value - (1 << 64) if value >= FAILED else value)


def _key(name: str, values: list[int]) -> int:
    return POLL if name in POLL_WAITS else values[0] & 0x7FFFFFFF


def _several(name: str, values: list[int]) -> bool:
    """poll() of one descriptor is a client's wait for its answer."""
    return name not in ("poll", "ppoll") or (len(values) > 1 and values[1] > 1)


def _numbers(arguments: str, base: int) -> list[int]:
    """The arguments as signed numbers: `3, 7ffe…` of raw_syscalls, or `fd: 0x3, …` of syscalls."""
    found = re.findall(r"[0-9a-f]{1,16}", arguments) if base else re.findall(r": (?:0x)?([0-9a-f]{1,16})\b", arguments)
    values = [int(text, 16) for text in found]
    return [value - (1 << 64) if value >= FAILED else value for value in values]
