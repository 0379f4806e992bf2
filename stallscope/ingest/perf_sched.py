"""`perf script` of the scheduler's events alone, such as `perf sched record` leaves.

They tell when a thread slept, when it was woken and when it ran, and not in which call it slept: an idle wait for
events and a blocking call look alike.  Two things are no idle wait: being runnable without a CPU (run-queue delay), and
the kernel's uninterruptible sleep (state D: disk, page fault).  Either is a stall of at least that length if its thread
runs a loop.  With `raw_syscalls:*` in the same recording there are iterations and calls as well (`perf_script`).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from stallscope.ingest.perf_events import LOST, PREFIX, ns_of
from stallscope.ingest.rebuild import closing
from stallscope.ingest.run_queue import OffCpu, span_of
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import (
    NO_HANDLERS,
    STALLS_KEPT,
    loop_of,
    ms,
    plural,
    process_of,
    recording_of,
    take_all,
    unread,
)
from stallscope.recording.nouns import Missing, Recording, Stall

SCAN = re.compile(
    # Events that are neither a switch nor a wake-up are passed over.
    rb"\n(?![^\[\n]{1,60}\[\d{1,5}\] +\d{1,10}\.\d{6,9}: +(?!sched:sched_(?:switch|wak))\w+:\w+:[^\n]*\n)"
    rb"(?:" + PREFIX.replace(b"(?:\\d", b"(\\d") + rb"sched:sched_(?:switch: (?:"
    rb"prev_comm=([^\n]{0,16}?) prev_pid=(\d{1,10}) prev_prio=-?\d{1,4} prev_state=([A-Za-z+|]{1,8}) ==> "
    rb"next_comm=([^\n]{0,16}?) next_pid=(\d{1,10}) next_prio=-?\d{1,4}|"
    rb"([^\n]{0,16}?):(\d{1,10}) \[-?\d{1,4}\] ([A-Za-z+|]{1,8}) ==> ([^\n]{0,16}?):(\d{1,10}) \[-?\d{1,4}\])|"
    rb"wak(?:eup|ing|eup_new): (?:comm=[^\n]{0,16}? pid=(\d{1,10}) prio=|[^\n]{0,16}?:(\d{1,10}) \[)[^\n]*)(?=\n)"
    rb"|([^\n]+))"
)
"""Groups: program, thread, CPU, seconds; of a switch who left, its number and state, who came and its number, in both
forms; of a wake-up who was woken; and any other line."""
OURS = re.compile(r"^[^\[\n]+ \d+ +\[\d+\] +\d+\.\d+: +sched:sched_(?:switch|stat|wak)", re.MULTILINE)
SWITCH, SHORT_SWITCH, WAKE, SHORT_WAKE, OTHER = 9, 14, 15, 16, 17
"""The last group of each (`Match.lastindex`)."""
NO_ITERATIONS = Missing(
    "iterations and their modes",
    "the scheduler's events do not tell an idle wait from a blocking call: record raw_syscalls:* with them",
)
NO_CALLS = Missing("calls and resources", "the scheduler's events hold no call")
LOWER_BOUND = Missing("stall lengths", "a wait for a CPU or a disk is a lower bound of its stall")
TOLD = 3


@dataclass(slots=True)
class Thread:
    """A thread's times off the CPU."""

    tid: int
    program: str
    off_cpu: OffCpu
    first_ns: int
    last_ns: int = 0
    delays: int = 0
    delay_ns: int = 0
    longest_ns: int = 0
    stalls: int = 0


CAVEAT = "each wait for a CPU or a disk is a stall only where its thread runs an event loop: look for the loop's own"


def recognises(head: str) -> bool:
    return (
        re.search(r"^[^\[\n]+ \d+ +\[\d+\] +\d+\.\d+: +sched:sched_(?:switch|stat|wak)", head, re.MULTILINE) is not None
    )


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop of unknown kind for each thread that once had to wait for the threshold or longer."""
    reader = Reader(threshold_ns)
    cut = take_all(reader, source)
    slow = [thread for thread in reader.threads.values() if thread.stalls]
    numbers = {thread.tid: number for number, thread in enumerate(slow, 1)}
    return recording_of(
        source,
        "perf-sched",
        threshold_ns,
        loops=[loop_of(numbers[t.tid], t.tid, "thread", t.program, t.first_ns, t.last_ns) for t in slow],
        processes=[process_of(numbers[t.tid], t.tid, t.program, t.first_ns) for t in slow],
        stalls=[stall._replace(loop_id=numbers[stall.loop_id]) for _, _, stall in reader.longest],
        missing=[NO_ITERATIONS, NO_CALLS, LOWER_BOUND, NO_HANDLERS],
        notes=[CAVEAT, *reader.remarks(), *unread(reader.unread, cut)],
        suppressed=sum(thread.stalls for thread in slow) - len(reader.longest),
    )


class Reader:
    """The state of one pass."""

    def __init__(self, threshold_ns: int) -> None:
        self.threads: dict[bytes, Thread] = {}
        self.longest: list[tuple[int, int, Stall]] = []
        """A heap: duration, number, stall (whose loop is the thread's number)."""
        self.unread = self.lost = self.gaps = 0
        self._running: dict[bytes, bytes] = {}
        """By CPU."""
        self._threshold_ns = threshold_ns
        self._stalls = 0

    def take(self, chunk: bytes) -> None:
        """A chunk of whole lines."""
        text = b"\n" + chunk if chunk.endswith(b"\n") else b"\n" + chunk + b"\n"
        for found in SCAN.finditer(text):
            kind = found.lastindex or 0
            if kind == OTHER:
                self._other(found[OTHER])
                continue
            at_ns = ns_of(found[4])
            if kind in (WAKE, SHORT_WAKE):
                woken = self.threads.get(found[kind])
                if woken is not None:
                    woken.off_cpu.wake(at_ns)
                continue
            left, left_tid, state, came, came_tid = found.group(*range(kind - 4, kind + 1))
            if self._running.get(found[3], left_tid) != left_tid:
                self.gaps += 1  # somebody came in between, and any other may have come and gone there
                self._forget()
            self._running[found[3]] = came_tid
            self._thread(left_tid, left, at_ns).off_cpu.leave(at_ns, state.decode())
            self._thread(came_tid, came, at_ns).off_cpu.come(at_ns)

    def _other(self, line: bytes) -> None:
        if lost := LOST.search(line):
            self.lost += int(lost[1])
        elif not line.strip(b"\r") or line[:1] in b"#\t":
            return
        else:
            self.unread += 1
        self._running.clear()
        self._forget()

    def _forget(self) -> None:
        """Who ran, and who waited, is unknown."""
        for thread in self.threads.values():
            thread.off_cpu.forget()

    def _thread(self, number: bytes, program: bytes, at_ns: int) -> Thread:
        thread = self.threads.get(number)
        if thread is None:
            off_cpu = OffCpu(partial(self._waited, number))
            thread = Thread(int(number), program.decode("utf-8", "replace"), off_cpu, at_ns, at_ns)
            self.threads[number] = thread
        thread.last_ns = max(thread.last_ns, at_ns)
        return thread

    def _waited(self, number: bytes, from_ns: int, to_ns: int, state: str) -> None:
        """A thread was off the CPU."""
        thread, duration_ns = self.threads[number], to_ns - from_ns
        if state not in "RD" or not thread.tid or duration_ns < 0:
            return  # asleep, or the idle task
        if state == "R":
            thread.delays += 1
            thread.delay_ns += duration_ns
            thread.longest_ns = max(thread.longest_ns, duration_ns)
        if duration_ns >= self._threshold_ns:
            thread.stalls += 1
            self._stalls += 1
            spans = span_of(from_ns, to_ns, state), closing(to_ns)
            entry = duration_ns, self._stalls, Stall(thread.tid, from_ns, duration_ns, spans=spans)
            (heapq.heappush if len(self.longest) < STALLS_KEPT else heapq.heappushpop)(self.longest, entry)

    def remarks(self) -> Iterator[str]:
        """Who waited most for a CPU."""
        most = sorted(self.threads.values(), key=lambda thread: -thread.delay_ns)
        for thread in [thread for thread in most if thread.delay_ns][:TOLD]:
            yield (
                f"thread {thread.tid} ({thread.program}) waited {thread.delays:,} times for a CPU, "
                f"{ms(thread.delay_ns)} in all, the longest {ms(thread.longest_ns)}"
            )
        if self.gaps:
            yield (
                f"{plural(self.gaps, 'gap')} in the record of who ran: waits across them were left out; "
                "record all CPUs (perf sched record), and print all events"
            )
        if self.lost:
            yield f"perf lost {plural(self.lost, 'event')}: waits during which it did were left out"
