"""From the waits and calls of each thread to iterations and stalls, whichever tool traced them.

A tracer's file calls `Thread.enter_wait`, `Thread.leave_wait` and `Thread.call`; `Rebuild.recording` makes the nouns.
Times are ns on the trace's own clock.  Memory does not grow with the trace: histograms, descriptor tables, the
longest stalls, and the lines of the iteration in progress.

Which wait is the loop's?  The first epoll descriptor that a thread waits for; a wait on another one is a blocking call.
A trace that begins inside such a nested wait picks the wrong one at first, so `CHANGE_OVER` waits in a row on another
descriptor change it.  poll() and select() make a loop only in a thread that never waits by epoll, since getaddrinfo()
and many a client library poll inside a call.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stallscope.agent.layout import bucket_of
from stallscope.ingest.descriptors import Descriptors
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import STALLS_KEPT, plural, recording_of
from stallscope.recording.nouns import Call, Loop, Missing, Process, Recording, Stall, TimedCall

POLL = -1
"""The key of waits by poll() and select(); epoll waits have their descriptor as key."""
CHANGE_OVER = 64
LEAST_POLLS = 10
"""A thread with fewer iterations by poll() or select() is no loop."""
LINES_KEPT = 20_000
"""Short calls remembered of an iteration in progress; the rest of a longer one is not itemised."""
ROUNDING_NS = 2_000
"""A call may seem to end so much after its iteration, whose ends are rounded to microseconds."""
CALLS_KEPT = 64
"""Entries kept for a stall, longest first."""

Digest = Callable[["Thread", "list[Any]"], Iterable["tuple[int, Call]"]]
"""The short calls of an iteration, as the tracer's file kept them in `Thread.lines`, as (duration_ns, call)."""


class Image:
    """A traced process: the threads that share a descriptor table."""

    def __init__(self, pid: int, descriptors: Descriptors | None = None, program: str = "") -> None:
        self.pid = pid
        self.parent_pid = 0
        self.descriptors = descriptors or Descriptors()
        self.program = program
        self.ending = ""


class Thread:
    """One traced thread, and its loop if it has one."""

    __slots__ = (
        "backwards", "calls", "counts", "ended_ns", "first_ns", "held", "image", "iterations", "key", "last_ns",
        "lines", "other", "others", "owner", "returned_ns", "stalls", "tid", "traced_calls", "untimed", "zero_waits",
    )  # fmt: skip

    def __init__(self, owner: Rebuild, tid: int, image: Image) -> None:
        self.owner, self.tid, self.image = owner, tid, image
        self.key: int | None = None
        self.other: int | None = None
        self.others = 0
        self.returned_ns: int | None = None
        """When the iteration in progress began; None while waiting, and before the first wait."""
        self.held: tuple[int, int, tuple[TimedCall, ...]] | None = None
        """The last iteration (began_ns, duration_ns, calls of a stall), not counted yet."""
        self.lines: list[Any] = []
        self.calls: list[TimedCall] = []
        self.counts: dict[int, int] = {}
        self.iterations = self.zero_waits = self.traced_calls = self.backwards = self.untimed = self.stalls = 0
        self.first_ns: int | None = None
        self.last_ns = 0
        self.ended_ns: int | None = None

    def enter_wait(self, key: int, at_ns: int) -> bool:
        """A wait begins.  False: it is not this loop's, but a blocking call."""
        if key != self.key and not self._adopt(key):
            return False
        self.others = 0
        self.settle(at_ns)
        if self.returned_ns is not None:
            self._end_iteration(self.returned_ns, at_ns)
            self.returned_ns = None
        return True

    def leave_wait(self, at_ns: int, polls: bool) -> None:
        """The wait returns; `polls` when its timeout was zero."""
        self.zero_waits += polls
        if at_ns < self.last_ns:
            self.backwards += 1
        else:
            self.returned_ns = at_ns
        self.last_ns = at_ns

    def settle(self, at_ns: int) -> None:
        """Count the last iteration, now that the trace went on after it.

        One damaged stamp far ahead would otherwise be a long stall.
        """
        if self.held is None:
            return
        began_ns, duration_ns, calls = self.held
        self.held = None
        if at_ns < began_ns + duration_ns:
            self.backwards += 1
            return
        self.iterations += 1
        bucket = bucket_of(duration_ns)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        if duration_ns >= self.owner.threshold_ns:
            self.owner.keep(self, Stall(0, began_ns, duration_ns, calls=calls))

    def call(self, start_ns: int, duration_ns: int, call: Call) -> None:
        """A call that is worth an entry of its own, finished inside the iteration in progress."""
        if self.returned_ns is not None and len(self.calls) < LINES_KEPT:
            self.calls.append(TimedCall(start_ns, duration_ns, call))

    def forget_iteration(self) -> None:
        """The trace has a hole: what is in progress cannot be timed."""
        self.returned_ns = None
        self._clear()

    @property
    def is_loop(self) -> bool:
        waits = self.iterations + self.untimed
        return self.key is not None and waits >= (LEAST_POLLS if self.key == POLL else 1)

    def itemised(self, began_ns: int, at_ns: int) -> tuple[TimedCall, ...]:
        """The calls of the iteration in progress, the long ones singly, the short ones summed by name and resource."""
        sums: dict[Call, list[int]] = {}
        for duration_ns, call in self.owner.digest(self, self.lines):
            entry = sums.setdefault(call, [0, 0])
            entry[0] += duration_ns
            entry[1] += 1
        short = [TimedCall(began_ns, total, call, count=count) for call, (total, count) in sums.items() if total]
        fitting = [
            c for c in self.calls if began_ns <= c.start_ns and c.start_ns + c.duration_ns <= at_ns + ROUNDING_NS
        ]
        return tuple(sorted([*fitting, *short], key=lambda call: -call.duration_ns)[:CALLS_KEPT])

    def _adopt(self, key: int) -> bool:
        """Whether waits under `key` become the loop's."""
        better = self.key is None or (self.key == POLL and key != POLL)
        if not better and key != POLL:
            self.others = self.others + 1 if key == self.other else 1
            self.other = key
            better = self.others >= CHANGE_OVER
        if better:
            if self.key == POLL:
                self.counts, self.iterations, self.untimed, self.zero_waits, self.stalls = {}, 0, 0, 0, 0
                self.owner.drop(self)
            self.key, self.held = key, None
            self.forget_iteration()
        return better

    def _end_iteration(self, began_ns: int, at_ns: int) -> None:
        duration_ns = at_ns - began_ns
        if duration_ns < 0:
            self.backwards += 1
        else:
            self.traced_calls += len(self.lines) + len(self.calls)
            self.held = began_ns, duration_ns, self._details(began_ns, at_ns)
        self._clear()

    def _details(self, began_ns: int, at_ns: int) -> tuple[TimedCall, ...]:
        """The calls of a stall that is long enough to be kept."""
        return self.itemised(began_ns, at_ns) if at_ns - began_ns >= self.owner.shortest_kept_ns else ()

    def _clear(self) -> None:
        if self.lines:
            self.lines.clear()
        if self.calls:
            self.calls = []


class Rebuild:
    """All threads of one trace."""

    def __init__(self, threshold_ns: int, digest: Digest = lambda thread, lines: ()) -> None:
        self.threshold_ns = threshold_ns
        self.digest = digest
        self.threads: list[Thread] = []
        self.images: list[Image] = []
        self.shortest_kept_ns = threshold_ns
        self._longest: list[tuple[int, int, Thread, Stall]] = []
        self._kept = 0

    def thread(self, tid: int, image: Image | None = None) -> Thread:
        """A new thread, of a process of its own unless `image` is given."""
        if image is None:
            image = Image(tid)
            self.images.append(image)
        self.threads.append(Thread(self, tid, image))
        return self.threads[-1]

    def keep(self, thread: Thread, stall: Stall) -> None:
        """Keep a stall if it is among the longest."""
        self._kept += 1
        thread.stalls += 1
        entry = (stall.duration_ns, self._kept, thread, stall)
        if len(self._longest) < STALLS_KEPT:
            heapq.heappush(self._longest, entry)
        elif stall.duration_ns > self._longest[0][0]:
            heapq.heapreplace(self._longest, entry)
            self.shortest_kept_ns = self._longest[0][0]

    def drop(self, thread: Thread) -> None:
        """Forget the stalls of a thread whose loop turned out to be another."""
        self._longest = [entry for entry in self._longest if entry[2] is not thread]
        heapq.heapify(self._longest)
        self.shortest_kept_ns = self.threshold_ns

    def recording(
        self, source: Source, form: str, end_ns: int, missing: Iterable[Missing], notes: Iterable[str]
    ) -> Recording:
        """The nouns.  `end_ns` is when the trace ended: threads that did not exit lived until then."""
        for thread in self.threads:
            thread.settle(max(end_ns, thread.last_ns))
        loops = [thread for thread in self.threads if thread.is_loop]
        images = {thread.image: number for number, thread in enumerate(loops, 1)}
        numbers = {thread: number for number, thread in enumerate(loops, 1)}
        stalls = [_numbered(stall, numbers[thread]) for _, _, thread, stall in self._longest if thread in numbers]
        return recording_of(
            source,
            form,
            self.threshold_ns,
            loops=[_loop(thread, number, images[thread.image], end_ns) for thread, number in numbers.items()],
            processes=[_process(image, number, self.threads, end_ns) for image, number in images.items()],
            stalls=stalls,
            missing=missing,
            notes=[*notes, *self._remarks(loops)],
            suppressed=sum(thread.stalls for thread in loops) - len(stalls),
        )

    def _remarks(self, loops: list[Thread]) -> Iterator[str]:
        others = [thread for thread in self.threads if not thread.is_loop]
        if others:
            tids = ", ".join(str(thread.tid) for thread in others[:8]) + ", …" * (len(others) > 8)
            yield f"{plural(len(others), 'thread')} ran no event loop, a pool perhaps, and did not count: {tids}"
        for thread in loops:
            if thread.untimed:
                yield f"thread {thread.tid}: {plural(thread.untimed, 'iteration')} seen, none of them timed"
            if thread.backwards:
                yield f"thread {thread.tid}: {plural(thread.backwards, 'iteration')} left out, the clock went backwards"


def _numbered(stall: Stall, number: int) -> Stall:
    return Stall(number, stall.start_ns, stall.duration_ns, stall.finished, calls=stall.calls)


def _loop(thread: Thread, number: int, process: int, end_ns: int) -> Loop:
    opened_ns = thread.first_ns or 0
    last_ns = max(opened_ns, thread.last_ns, end_ns if thread.ended_ns is None else thread.ended_ns)
    kind = "poll" if thread.key == POLL else "epoll"
    name = f"thread {thread.tid}" if thread.tid else "unnamed thread"
    return Loop(
        number, process, thread.image.pid, thread.tid, kind, name, opened_ns, last_ns, thread.counts, thread.zero_waits
    )


def _process(image: Image, number: int, threads: Iterable[Thread], end_ns: int) -> Process:
    own = [thread for thread in threads if thread.image is image]
    started_ns = min((thread.first_ns for thread in own if thread.first_ns is not None), default=0)
    ended = [thread.ended_ns for thread in own if thread.tid == image.pid and thread.ended_ns is not None]
    program = image.program or (f"pid {image.pid}" if image.pid else "unnamed program")
    return Process(
        number, image.pid, image.parent_pid, program, "", started_ns, ended[-1] if ended else None, image.ending
    )
