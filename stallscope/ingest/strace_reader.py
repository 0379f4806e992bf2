"""One pass over the text of strace."""

from __future__ import annotations

import re
from collections import Counter

from stallscope.ingest.calls import BIRTHS, POLL_WAITS, WAITS, Describer, watches_several
from stallscope.ingest.descriptors import CHANGES, DESCRIPTOR, MAKERS, STRING, unescaped
from stallscope.ingest.rebuild import POLL, Evidence, Image, Rebuild, Thread
from stallscope.ingest.recurring import Recurring
from stallscope.ingest.strace_lines import (
    ATTACHED,
    CLOSED,
    CUT_SHORT,
    DIGEST,
    EVERY_LINE,
    FRAME,
    LINE,
    MADE,
    NAMED,
    RESTARTED,
    RESUMED,
    THREADS,
    TIMED_CALL,
    WAITED,
    Clock,
    Parsed,
    fraction_ns,
    has_absolute_stamps,
    has_durations,
    is_two_lines,
    parsed,
    polls,
    scanner,
    seconds_ns,
    text_of,
)
from stallscope.ingest.window import Window, count_by, last_line
from stallscope.recording.nouns import Stall, TimedCall

PROGRAMS = {*WAITS, *BIRTHS, "execve", "restart_syscall"}
DESCRIPTORS = {*CHANGES, *MAKERS, "close"}
PENDING_KEPT = 100_000


class Reader:
    """The state of one pass."""

    def __init__(self, threshold_ns: int, head: bytes, default_tid: int = 0, before: Reader | None = None) -> None:
        """`before` has read another file of the same set."""
        self.rebuild: Rebuild = before.rebuild if before else Rebuild(threshold_ns, self._digest)
        self.rebuild.digest = self._digest
        self.one_thread = default_tid > 0
        self.window = Window()
        self.clock = Clock()
        self.timed = has_durations(head)
        self.skips = self.timed and has_absolute_stamps(head)
        self.scan = scanner(head) if self.skips else EVERY_LINE
        self.telling = PROGRAMS if NAMED.search(head) else PROGRAMS | DESCRIPTORS
        self.threads: dict[bytes, Thread] = before.threads if before else {}
        self.lines: Counter[bytes] = Counter()
        """By thread."""
        self.numbers, self.times_ns = Recurring(int), Recurring(seconds_ns)
        self.pending: dict[Thread, tuple[int, bytes, bool]] = {}
        """First halves of calls that tell something: when, text, and whether it is the loop's wait."""
        self.stamped_ns: dict[Thread, int] = {}
        """When the line was written in which its iteration in progress began."""
        self._unfinished: TimedCall | None = None
        self.announced: set[bytes] = set()
        self.main = str(default_tid).encode()
        self.unread = self.halves = 0
        self.cut = False
        """The last line broke off."""

    @property
    def untimed(self) -> bool:
        return not self.timed or self.clock.coarse

    def take(self, chunk: bytes) -> None:
        """A chunk of whole lines."""
        start = self.window.add(chunk)
        base = start - 1  # of the text, which begins with a line feed
        text = b"\n" + chunk if chunk.endswith(b"\n") else b"\n" + chunk + b"\n"
        self.lines.update(self._by_thread(text, self.window.added))
        for found in self.scan.finditer(text, 1):
            kind = found.lastindex
            if kind == WAITED:
                self._waited(found, base)
            elif kind == MADE:
                self._made(found, base)
            elif kind == CLOSED:
                token, descriptor = found.group(2, 11)
                self._thread(token).image.descriptors.closed(self.numbers[descriptor], base + found.start(1))
            elif kind is not None:
                self._parse(found[kind], base + found.start(kind))
        self._leave_out_beginnings(text, start)
        if self.skips and (last := LINE.match(last_line(text, FRAME))):
            self.clock.move(last[2])

    def _by_thread(self, text: bytes, lines: int) -> Counter[bytes]:
        """How many lines each thread has: most of a pool have none but such that are passed over."""
        counts = count_by(THREADS, b"\n", b" ", text, lines, self.lines)
        if (nameless := lines - counts.total()) > 0:
            counts[self.main] += nameless
        return counts

    def _leave_out_beginnings(self, text: bytes, base: int) -> None:
        """What a program did before its loop began says nothing of its iterations."""
        for token, thread in self.threads.items():
            if thread.opened_at is not None and thread.opened_at >= base:
                after = text[thread.opened_at - base :]
                thread.lines = self._by_thread(after, after.count(b"\n") - 1)[token] - self.lines[token]

    def _waited(self, found: re.Match[bytes], base: int) -> None:
        """A whole epoll_wait()."""
        token, stamp, descriptor, timeout, took = found.group(2, 3, 4, 5, 6)
        thread = self.threads.get(token or self.main) or self._thread(token)
        clock = self.clock
        clock.now_ns = start_ns = int(stamp.replace(b".", b"")) * 1000 if len(stamp) == 17 else clock.move(stamp)
        if thread.first_ns is None:
            thread.first_ns = start_ns
        thread.turn(
            self.numbers[descriptor], start_ns, start_ns + self.times_ns[took], timeout is not None, found, base
        )

    def _made(self, found: re.Match[bytes], base: int) -> None:
        """A call that made a descriptor, or failed to."""
        token, name, arguments, number, after = found.group(2, 7, 8, 9, 10)
        if number[0] != 45:  # a minus
            made = name, arguments, after
            self._thread(token).image.descriptors.made(self.numbers[number], base + found.start(1), made)

    def _parse(self, line: bytes, at: int) -> None:
        found = LINE.fullmatch(line)
        if not found:
            self._not_a_call(line)
            return
        thread = self._thread(found[1])
        self.clock.move(found[2])
        if thread.first_ns is None:
            thread.first_ns = self.clock.now_ns
        text = found[3]
        if text.startswith((b"+++ ", b"--- ")):
            self._event(thread, text)
        elif text.startswith(b"<... "):
            self._resume(thread, text, at + len(line))
        elif text.endswith(CUT_SHORT):
            self._suspend(thread, text[: text.rindex(b"<")].rstrip(b" "), at)
        else:
            self._whole(thread, text, self.clock.now_ns, at, at + len(line))

    def _not_a_call(self, line: bytes) -> None:
        if announcement := ATTACHED.match(line):
            self.announced.add(announcement[1])
        elif not line.startswith((b"strace: ", FRAME)):
            self._hole()

    def _hole(self) -> None:
        self.unread += 1
        self.rebuild.gap()
        self.pending.clear()  # it may have been a second half, and the next one another call's

    def _thread(self, token: bytes | None) -> Thread:
        token = token or self.main
        thread = self.threads.get(token)
        if thread is None:
            thread = self._nameless(token) or self.rebuild.thread(int(token))
            self.threads[token] = thread
        return thread

    def _nameless(self, token: bytes) -> Thread | None:
        """strace names its first process only when there are more: its lines so far were without a number."""
        first = self.threads.get(self.main)
        if first is None or token in self.announced or first.tid or token == self.main:
            return None
        first.tid = first.image.pid = int(token)
        return first

    def _event(self, thread: Thread, text: bytes) -> None:
        """Signals and exits."""
        if text.startswith(b"+++ "):
            thread.ended_ns = self.clock.now_ns
            thread.forget_iteration()
            self.pending.pop(thread, None)
            if thread.tid == thread.image.pid:
                thread.image.ending = "killed" if text.startswith(b"+++ killed") else "exited"

    def _suspend(self, thread: Thread, text: bytes, at: int) -> None:
        """The first half of a call in two lines."""
        self.halves += thread in self.pending  # its second half was lost
        name, _, arguments = text_of(text).partition("(")
        if name in self.telling and len(self.pending) < PENDING_KEPT:
            entered = name in WAITS and not self.untimed and self._enter(thread, name, arguments, self.clock.now_ns, at)
            self.pending[thread] = self.clock.now_ns, text, entered

    def _resume(self, thread: Thread, text: bytes, end: int) -> None:
        """The second half."""
        found = RESUMED.match(text)
        if not found:
            self._hole()
            return
        if text_of(found[1]) not in self.telling:
            return
        first = self.pending.pop(thread, None)
        if first is None and text_of(found[1]) in POLL_WAITS and thread.key != POLL:
            return  # it waited for one descriptor, and its first half was passed over
        if first is None or not first[1].startswith(found[1] + b"("):
            self.halves += 1
            thread.forget_iteration()
            return
        whole = first[1] + found[2].lstrip(b" ")
        self._whole(thread, whole, first[0], end - len(text), end, entered=first[2])

    def _whole(self, thread: Thread, text: bytes, start_ns: int, at: int, end: int, entered: bool = False) -> None:
        """A call from its name to its duration, in lines that lie between two positions."""
        call = None if is_two_lines(text) else parsed(text, start_ns)
        if call is None or (self.timed and call.duration_ns is None and not call.result.startswith("?")):
            self._hole()
            return
        if restarted := RESTARTED.match(text):
            call.name = restarted[1].decode()
            entered = call.name in WAITS
        if call.name in WAITS and (entered or self._enter(thread, call.name, call.arguments, start_ns, at)):
            self._left(thread, call, end)
        elif call.name in self.telling:
            self._observe(thread, call, at)

    def _left(self, thread: Thread, call: Parsed, end: int) -> None:
        """The loop's wait is over."""
        if call.duration_ns is None or self.untimed:
            thread.untimed += not call.result.startswith("?")
            thread.forget_iteration()
        elif call.result.startswith("?"):
            thread.forget_iteration()  # a signal: the wait goes on in restart_syscall(), or the thread exits
        else:
            thread.leave_wait(call.start_ns + call.duration_ns, polls(call.name, call.arguments), end)
            self.stamped_ns[thread] = self.clock.now_ns

    def _enter(self, thread: Thread, name: str, arguments: str, at_ns: int, at: int) -> bool:
        if name in POLL_WAITS:
            return watches_several(arguments) and thread.enter_wait(POLL, at_ns, at)
        descriptor = DESCRIPTOR.match(arguments)
        return descriptor is not None and thread.enter_wait(int(descriptor[1]), at_ns, at)

    def _observe(self, thread: Thread, call: Parsed, at: int) -> None:
        """What a call changes: descriptors, threads and programs."""
        table, returned = thread.image.descriptors, DESCRIPTOR.match(call.result)
        if call.name in CHANGES:
            table.observe(call.name, call.arguments, call.result, at)
        elif call.name in BIRTHS:
            self._birth(thread, call)
        elif call.name == "execve" and call.result.startswith("0"):
            words = STRING.finditer(call.arguments.partition("[")[2].partition("]")[0])
            thread.image.program = " ".join(unescaped(word[1]) + "…" * word[0].endswith("...") for word in words)
        elif call.name == "close" and (closed := DESCRIPTOR.match(call.arguments)):
            table.closed(int(closed[1]), at)
        elif call.name in MAKERS and returned and returned[1][0] != "-":
            made = call.name.encode(), call.arguments.encode(), call.result[len(returned[1]) :].encode()
            table.made(int(returned[1]), at, made)

    def _birth(self, thread: Thread, call: Parsed) -> None:
        """A new thread shares its parent's descriptors, a new process has a copy of them."""
        number = call.result.partition(" ")[0].encode()
        if not number.isdigit() or len(number) > 9:
            return
        child = self.threads.get(number)
        if "CLONE_THREAD" in call.arguments:
            # In a set of files nothing tells which call came first, hence what a shared descriptor was at a moment.
            image = Image(thread.image.pid, program=thread.image.program) if self.one_thread else thread.image
            if child is None:
                self.threads[number] = self.rebuild.thread(int(number), image)
            elif not self.one_thread:
                child.image = image
            return
        child = child or self._thread(number)
        child.image.parent_pid = thread.image.pid
        child.image.program = child.image.program or thread.image.program
        child.image.descriptors.inherit(thread.image.descriptors)

    def finish(self) -> None:
        """What was in progress when the trace ended, and threads of whom nothing told."""
        if len(self.lines) > 1 and self.main not in self.threads:
            del self.lines[self.main]  # lines without a number, and no calls
        for token, count in self.lines.items():
            self._thread(token).lines += count
        for thread in {self._thread(token) for token in self.lines}:
            if not self.untimed and thread.returned_ns is not None and thread.ended_ns is None:
                self._hung(thread, thread.returned_ns)

    def _hung(self, thread: Thread, since_ns: int) -> None:
        """A loop that was in a call, long since, when the trace ended."""
        now_ns = self.clock.now_ns
        if now_ns - since_ns < self.rebuild.threshold_ns:
            return
        evidence = thread.evidence(since_ns, now_ns, thread.since, self.window.end)
        if self._unfinished is not None:
            calls = (self._unfinished, *evidence.calls)
            self.rebuild.keep(thread, Stall(0, since_ns, now_ns - since_ns, finished=False, calls=calls))

    def _digest(self, thread: Thread, begin: int, end: int) -> Evidence:
        """The calls of a thread between two positions; the one that had not returned is kept aside."""
        evidence, describer = Evidence(), Describer(thread.image.descriptors)
        clock = self.clock.back_at(self.stamped_ns.get(thread, 0) if self.clock.relative else thread.returned_ns or 0)
        halves: list[tuple[int, bytes]] = []
        at, text = self.window.text(begin, end)
        starts = self._starts(thread)
        for line in text.split(b"\n"):
            if line.startswith(starts) and (found := DIGEST.fullmatch(line)):
                token, stamp, name, arguments, seconds, fraction, other = found.groups()
                start_ns = clock.move(stamp)
                if self.threads.get(token or self.main) is not thread:
                    pass
                elif other is None and b"wait(" in arguments and is_two_lines(arguments):
                    evidence.torn = True  # another's line in this one: a wait may be hidden in it
                elif other is not None:
                    self._half(evidence, describer, halves, other, start_ns, at)
                else:
                    call = describer.describe(name, arguments, at)
                    evidence.add(start_ns, int(seconds) * 10**9 + fraction_ns(fraction), call)
            at += len(line) + 1
        self._unfinished = None
        if halves:
            start_ns, half = halves[0]
            name, _, arguments = half.partition(b"(")
            took_ns = max(0, self.clock.now_ns - start_ns)
            self._unfinished = TimedCall(start_ns, took_ns, describer.describe(name, arguments, end))
        return evidence

    def _starts(self, thread: Thread) -> tuple[bytes, ...]:
        """How the lines of a thread begin; of others they need not be read, unless stamps count from line to line."""
        tokens = [token for token, other in self.threads.items() if other is thread]
        if self.clock.relative or self.main in tokens:
            return (b"",)
        return tuple(start for token in tokens for start in (token + b" ", b"[pid %5s]" % token))

    def _half(
        self,
        evidence: Evidence,
        describer: Describer,
        halves: list[tuple[int, bytes]],
        text: bytes,
        at_ns: int,
        at: int,
    ) -> None:
        """A line that is no whole call: the first half of one, or the second."""
        if text.endswith(CUT_SHORT):
            halves[:] = [(at_ns, text[: text.rindex(b"<")].rstrip(b" "))]
        elif resumed := RESUMED.match(text):
            if not halves or not halves[0][1].startswith(resumed[1] + b"("):
                evidence.torn = True
                return
            start_ns, first = halves.pop()
            call = TIMED_CALL.match(first + resumed[2].lstrip(b" "))
            if call:
                took_ns = int(call[4]) * 10**9 + fraction_ns(call[5])
                evidence.add(start_ns, took_ns, describer.describe(call[1], call[2], at))
