"""strace text: `-f`, one file of `-ff`, `-t`/`-tt`/`-ttt`/`-r`, `-T`, `-y`/`-yy`, with or without `-o`.

Form: strace(1) and the sources' tests.  A line is `[pid ]stamp name(arguments) = result <seconds>`; a call that
another thread's line interrupted comes in two, `… <unfinished ...>` and `<... name resumed>…`.

One pass over bytes: most lines are short calls, which cost a split, two look-ups and an append; only waits, calls that
change descriptors and calls of a millisecond or more are parsed.  The short calls of an iteration are kept as lines,
and parsed when it turns out to be a stall.

Durations need `-T` and stamps finer than a second: without them the return of a wait is unknown, and a wait's idle time
would be taken for a stall.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from stallscope.ingest.calls import BIRTHS, POLL_WAITS, WAITS, describe, watches_several
from stallscope.ingest.descriptors import CHANGES, DESCRIPTOR, STRING, unescaped
from stallscope.ingest.rebuild import LINES_KEPT, POLL, Rebuild, Thread
from stallscope.ingest.source import Source
from stallscope.ingest.strace_lines import (
    ATTACHED,
    BRACKETS,
    CUT_SHORT,
    LINE,
    RESTARTED,
    RESUMED,
    WAITED,
    Clock,
    Parsed,
    fraction_ns,
    has_durations,
    is_line,
    parsed,
    polls,
    text_of,
)
from stallscope.ingest.verdicts import NO_HANDLERS, ms, plural, unread
from stallscope.recording.nouns import Call, Missing, Recording, Stall

PARSED = {name.encode() for name in {*CHANGES, *WAITS, *BIRTHS, "restart_syscall", "execve"}}
SHORT = b"<0.000"
"""Calls under a millisecond are kept as lines."""
PENDING_KEPT = 100_000

NO_T = Missing("durations", "strace ran without -T: when a wait returned is unknown; record with strace -f -ttt -T -yy")
NO_STAMPS = Missing("durations", "the stamps are missing or of whole seconds: record with strace -f -ttt -T -yy")
NO_NAMES = Missing(
    "names of descriptors opened before strace came", "it ran without -y; record with strace -f -ttt -T -yy"
)
ANNOTATED = re.compile(rb"\(\d+<")
NO_CPU = Missing("causes between calls", "strace sees calls only, not CPU time, run queue or locks in user space")


def recognises(head: str) -> bool:
    """At least two lines in three of the first hundred are strace's."""
    lines = head.encode("utf-8", "replace").splitlines()[:100]
    lines = [line for line in lines if line.strip()][: max(1, len(lines) - 1)]
    ours = sum(1 for line in lines if is_line(line))
    return ours > 0 and 3 * ours >= 2 * len(lines)


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that waits for events again and again."""
    reader = Reader(threshold_ns, source.head, default_tid=_tid_in_name(source))
    for chunk in source.chunks():
        reader.take(chunk)
    reader.finish()
    missing = [NO_HANDLERS, NO_CPU]
    if reader.untimed:
        missing.insert(0, NO_STAMPS if reader.clock.coarse else NO_T)
    elif b"execve(" not in source.head and not ANNOTATED.search(source.head):
        missing.append(NO_NAMES)
    notes = [*inflation(source.head, reader.rebuild.threads), *unread(reader.unread)]
    if reader.halves:
        notes.append(f"{plural(reader.halves, 'interrupted call')} lacked one half and did not count")
    return reader.rebuild.recording(source, "strace", reader.clock.now_ns, missing, notes)


def inflation(head: bytes, threads: Iterable[Thread]) -> Iterator[str]:
    """By how much strace made the iterations longer, in words.

    strace stops the thread twice a call.  The shortest gaps between two calls of a thread (the 10th percentile of those
    in the first 64 KiB) are little but that.
    """
    gaps_ns = sorted(_gaps_ns(head))
    if len(gaps_ns) < 20:
        yield "strace stops the program twice a call and inflates its times: by how much, this trace does not tell"
        return
    cost_ns = gaps_ns[len(gaps_ns) // 10]
    loops = [thread for thread in threads if thread.is_loop and thread.iterations]
    calls = sum(thread.traced_calls for thread in loops) / (sum(thread.iterations for thread in loops) or 1)
    yield (
        f"strace stops the program twice a call, which cost some {cost_ns / 1e3:.0f} µs a call: with {calls:.1f} calls "
        f"the mean iteration seems {ms(cost_ns * calls)} longer than it is"
    )


def _gaps_ns(head: bytes) -> Iterator[int]:
    clock, ends = Clock(), dict[bytes, int]()
    for line in BRACKETS.sub(rb"\1", head).splitlines():
        found = LINE.fullmatch(line)
        call = parsed(found[8], 0) if found else None
        if found is None:
            continue
        clock.move(found)
        end_ns = ends.pop(found[1], None)
        if call and call.duration_ns is not None and not clock.coarse:
            if end_ns is not None and clock.now_ns >= end_ns:
                yield clock.now_ns - end_ns
            ends[found[1]] = clock.now_ns + call.duration_ns


def _tid_in_name(source: Source) -> int:
    """`strace -ff -o NAME` writes NAME.TID."""
    suffix = source.path.suffix[1:]
    return int(suffix) if suffix.isdigit() and len(suffix) < 8 else 0


class Reader:
    """The state of one pass."""

    def __init__(self, threshold_ns: int, head: bytes, default_tid: int = 0) -> None:
        self.rebuild = Rebuild(threshold_ns, _digest)
        self.clock = Clock()
        self.timed = has_durations(head)
        self.threads: dict[bytes, Thread] = {}
        self.pending: dict[Thread, tuple[int, bytes, bool]] = {}
        """First halves of calls: when, text, and whether it is the loop's wait."""
        self.announced: set[bytes] = set()
        self.main = str(default_tid).encode()
        self.unread = self.halves = 0

    @property
    def untimed(self) -> bool:
        return not self.timed or self.clock.coarse

    def take(self, chunk: bytes) -> None:
        """Every line of a chunk: a short call of a known thread is kept at once, all else goes to `_parse`."""
        if b"[pid " in chunk:
            chunk = BRACKETS.sub(rb"\1", chunk)
        threads, parse, clock = self.threads, self._parse, self.clock
        for line in chunk.split(b"\n"):
            parts = line.split(None, 2)
            if len(parts) == 3 and clock.absolute and (thread := threads.get(parts[0])):
                text = parts[2]
                if line[-10:-4] == SHORT and text[0] >= 97 and text.partition(b"(")[0] not in PARSED:
                    if thread.returned_ns is not None and len(thread.lines) < LINES_KEPT:
                        thread.lines.append(line)
                    continue
                if text.startswith(b"epoll_") and self._waited(thread, line):
                    continue
            if line:
                parse(line)

    def _waited(self, thread: Thread, line: bytes) -> bool:
        """A whole wait on the loop's own descriptor, the short way; False: it takes the long one."""
        found = WAITED.fullmatch(line)
        if not found or not self.timed or int(found[8]) != thread.key:
            return False
        self.clock.move(found)
        start_ns = self.clock.now_ns
        thread.enter_wait(thread.key, start_ns)
        thread.leave_wait(start_ns + int(found[10]) * 10**9 + fraction_ns(found[11]), found[9] == b"0")
        return True

    def _parse(self, line: bytes) -> None:
        found = LINE.fullmatch(line)
        if not found:
            self._not_a_call(line)
            return
        thread = self._thread(found[1] or self.main)
        self.clock.move(found)
        text = found[8]
        if text.startswith((b"+++ ", b"--- ")):
            self._event(thread, text)
        elif text.startswith(b"<... "):
            self._resume(thread, text)
        elif text.endswith(CUT_SHORT):
            self._suspend(thread, text[: text.rindex(b"<")].rstrip(b" "))
        else:
            self._whole(thread, text, self.clock.now_ns)

    def _not_a_call(self, line: bytes) -> None:
        if announcement := ATTACHED.match(line):
            self.announced.add(announcement[1])
        elif not line.startswith(b"strace: "):
            self.unread += 1  # it may have hidden a wait: nothing in progress can be timed any more
            for thread in self.threads.values():
                thread.forget_iteration()

    def _thread(self, token: bytes) -> Thread:
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

    def _suspend(self, thread: Thread, text: bytes) -> None:
        """The first half of a call in two lines."""
        self.halves += thread in self.pending  # its second half was lost
        if len(self.pending) < PENDING_KEPT:
            name, _, arguments = text_of(text).partition("(")
            entered = name in WAITS and not self.untimed and self._enter(thread, name, arguments, self.clock.now_ns)
            self.pending[thread] = self.clock.now_ns, text, entered

    def _resume(self, thread: Thread, text: bytes) -> None:
        """The second half."""
        found = RESUMED.match(text)
        first = self.pending.pop(thread, None)
        if not found or first is None or not first[1].startswith(found[1] + b"("):
            self.halves += 1
            thread.forget_iteration()
            return
        self._whole(thread, first[1] + found[2].lstrip(b" "), first[0], entered=first[2])

    def _whole(self, thread: Thread, text: bytes, start_ns: int, entered: bool = False) -> None:
        """A call from its name to its duration."""
        call = parsed(text, start_ns)
        if call is None or (self.timed and call.duration_ns is None and not call.result.startswith("?")):
            self.unread += 1
            thread.forget_iteration()
            return
        if thread.first_ns is None:
            thread.first_ns = start_ns
        if restarted := RESTARTED.match(text):
            call.name = restarted[1].decode()
            entered = call.name in WAITS
        if call.name in WAITS:
            self._wait(thread, call, entered)
        elif call.duration_ns is not None:
            thread.call(start_ns, call.duration_ns, describe(call.name, call.arguments, thread.image.descriptors))
        self._observe(thread, call)

    def _wait(self, thread: Thread, call: Parsed, entered: bool) -> None:
        """A wait that returned; `entered` when its first half was taken for the loop's already."""
        if not (entered or self._enter(thread, call.name, call.arguments, call.start_ns)):
            if call.duration_ns is not None:
                table = thread.image.descriptors
                thread.call(call.start_ns, call.duration_ns, describe(call.name, call.arguments, table))
        elif call.duration_ns is None or self.untimed:
            thread.untimed += not call.result.startswith("?")
            thread.forget_iteration()
        elif call.result.startswith("?"):
            thread.forget_iteration()  # a signal: the wait goes on in restart_syscall(), or the thread exits
        else:
            thread.leave_wait(call.start_ns + call.duration_ns, polls(call.name, call.arguments))

    def _enter(self, thread: Thread, name: str, arguments: str, at_ns: int) -> bool:
        if name in POLL_WAITS:
            return watches_several(arguments) and thread.enter_wait(POLL, at_ns)
        descriptor = DESCRIPTOR.match(arguments)
        return descriptor is not None and thread.enter_wait(int(descriptor[1]), at_ns)

    def _observe(self, thread: Thread, call: Parsed) -> None:
        """What a call changes: descriptors, threads and programs."""
        if call.name in CHANGES:
            thread.image.descriptors.observe(call.name, call.arguments, call.result)
        elif call.name in BIRTHS:
            self._birth(thread, call)
        elif call.name == "execve" and call.result.startswith("0"):
            words = STRING.finditer(call.arguments.partition("[")[2].partition("]")[0])
            thread.image.program = " ".join(unescaped(word[1]) + "…" * word[0].endswith("...") for word in words)

    def _birth(self, thread: Thread, call: Parsed) -> None:
        """A new thread shares its parent's descriptors, a new process has a copy of them."""
        number = call.result.partition(" ")[0].encode()
        if not number.isdigit() or len(number) > 9:
            return
        child = self.threads.get(number)
        if "CLONE_THREAD" in call.arguments:
            if child is None:
                self.threads[number] = self.rebuild.thread(int(number), thread.image)
            elif child.image is not thread.image:
                child.image = thread.image
            return
        child = child or self._thread(number)
        child.image.parent_pid = thread.image.pid
        child.image.program = child.image.program or thread.image.program
        child.image.descriptors.inherit(thread.image.descriptors)

    def finish(self) -> None:
        """What was in progress when the trace ended."""
        now_ns = self.clock.now_ns
        for thread, (start_ns, text, entered) in self.pending.items():
            if (
                entered
                or thread.returned_ns is None
                or self.untimed
                or now_ns - thread.returned_ns < self.rebuild.threshold_ns
            ):
                continue
            name, _, arguments = text_of(text).partition("(")
            thread.call(start_ns, max(0, now_ns - start_ns), describe(name, arguments, thread.image.descriptors))
            calls = thread.itemised(thread.returned_ns, now_ns)
            self.rebuild.keep(
                thread, Stall(0, thread.returned_ns, now_ns - thread.returned_ns, finished=False, calls=calls)
            )


def _digest(thread: Thread, lines: list[bytes]) -> Iterator[tuple[int, Call]]:
    for line in lines:
        found = LINE.fullmatch(line)
        call = parsed(found[8], 0) if found else None
        if call and call.duration_ns is not None:
            yield call.duration_ns, describe(call.name, call.arguments, thread.image.descriptors)
