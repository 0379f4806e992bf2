"""From the waits and calls of each thread to iterations and stalls, whichever tool traced them.

A tracer's file calls `Thread.enter_wait` and `Thread.leave_wait`, and gives the evidence for a stretch of its text when
asked; `Rebuild.recording` makes the nouns.  Times are ns on the trace's own clock.  Memory does not grow with the
trace: histograms, descriptor tables, the longest stalls, and the last megabytes of the text.

Which wait is the loop's?  The first epoll descriptor that a thread waits for; a wait on another one is a blocking call.
A trace that begins inside such a nested wait picks the wrong one at first, so `CHANGE_OVER` waits in a row on another
descriptor change it.  poll() and select() make a loop only in a thread that never waits by epoll, since getaddrinfo()
and many a client library poll inside a call.

A line that could not be read may have hidden a wait, of any thread.  So nothing is timed across one (`Rebuild.gap`),
and where one came before a thread's first wait, that wait is taken for the loop's with reserve (`Thread.doubtful`).
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from stallscope.agent.layout import MAX_NS, SUB_BITS, SUB_BUCKETS, bucket_of
from stallscope.ingest.descriptors import Descriptors
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_EVIDENCE, STALLS_KEPT, damage, plural, recording_of
from stallscope.recording.nouns import Call, Loop, Missing, Process, Recording, Span, Stall, TimedCall

POLL = -1
"""The key of waits by poll() and select(); epoll waits have their descriptor as key."""
CHANGE_OVER = 64
LEAST_POLLS = 10
"""A thread with fewer iterations by poll() or select() is no loop."""
ROUNDING_NS = 2_000
"""A call may seem to end so much after its iteration, whose ends are rounded to microseconds."""
SHORT_NS = 1_000_000
"""Calls under a millisecond are summed by name and resource."""
TWO_TRACES = ": it was set, or there are two traces in the file"
CALLS_KEPT = 64
"""Entries kept for a stall, longest first."""


@dataclass(slots=True)
class Evidence:
    """What a stretch of the trace says about one thread."""

    calls: list[TimedCall] = field(default_factory=list)
    """Those of a millisecond or more."""
    short: dict[int, tuple[Call, list[int]]] = field(default_factory=dict)
    """The others by kind: total ns, and how many."""
    spans: list[Span] = field(default_factory=list)
    torn: bool = False
    """Halves of calls are missing, and a wait may be."""

    def add(self, start_ns: int, duration_ns: int, call: Call) -> None:
        """A finished call; like ones should be the same object, which saves time."""
        if duration_ns >= SHORT_NS:
            self.calls.append(TimedCall(start_ns, duration_ns, call))
            return
        sums = self.short.get(id(call))
        if sums is None:
            sums = self.short[id(call)] = call, [0, 0]
        sums[1][0] += duration_ns
        sums[1][1] += 1

    def timed(self, began_ns: int, at_ns: int) -> list[TimedCall]:
        """The calls of an iteration, longest first: the short ones summed by name and resource."""
        sums: dict[Call, list[int]] = {}
        for call, (total_ns, count) in self.short.values():
            entry = sums.setdefault(call, [0, 0])
            entry[0] += total_ns
            entry[1] += count
        end_ns = at_ns + ROUNDING_NS
        fitting = [c for c in self.calls if began_ns <= c.start_ns and c.start_ns + c.duration_ns <= end_ns]
        short = [TimedCall(began_ns, total, call, calls=count) for call, (total, count) in sums.items() if total]
        return sorted([*fitting, *short], key=lambda timed: -timed.duration_ns)[:CALLS_KEPT]


Digest = Callable[["Thread", int, int], Evidence]
"""The evidence between two positions of the text, as the tracer's file reads it."""
Torn = Callable[["Thread", int, int], bool]
"""Whether halves of calls are missing there: asked of the stalls that are not kept, whose evidence nobody needs."""


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
        "backwards", "counts", "doubtful", "ended_ns", "first_ns", "gaps", "held", "holes", "image", "key",
        "last_ns", "lines", "opened_at", "other", "others", "owner", "returned_ns", "rivalled", "row",
        "set_back_ns", "short_ns", "since", "stalls", "steady_key", "tid", "untimed", "zero_waits",
    )  # fmt: skip

    def __init__(self, owner: Rebuild, tid: int, image: Image) -> None:
        self.owner, self.tid, self.image = owner, tid, image
        self.short_ns = min(owner.threshold_ns, MAX_NS)
        self.key: int | None = None
        self.steady_key: int | None = None
        """The key of its loop where the next iteration need only be counted: no stall is held, nothing is in doubt."""
        self.other: int | None = None
        self.others = 0
        self.returned_ns: int | None = None
        """When the iteration in progress began; None while waiting, and before the first wait."""
        self.since = 0
        """Where in the text it began."""
        self.held: tuple[int, int, Evidence | None] | None = None
        """The last stall (began_ns, duration_ns, evidence), not counted yet."""
        self.counts: defaultdict[int, int] = defaultdict(int)
        self.zero_waits = self.lines = self.backwards = self.holes = self.gaps = 0
        self.untimed = self.stalls = self.row = 0
        self.doubtful = self.rivalled = False
        """Lines before its first wait could not be read, and may have hidden the loop's own: so until `CHANGE_OVER`
        waits in a row were its loop's, nothing is timed across a wait on another descriptor (a rival)."""
        self.opened_at: int | None = None
        """Where in the text its loop began."""
        self.first_ns: int | None = None
        self.last_ns = 0
        self.ended_ns: int | None = None
        self.set_back_ns = 0
        """How far the clock went backwards, at most."""

    def turn(self, key: int, enter_ns: int, leave_ns: int, polls: bool, found: re.Match[bytes], base: int) -> None:
        """A whole wait, whose line begins with the first group of `found`, in a text that begins at `base`:
        `enter_wait` and `leave_wait` in one.

        Most iterations are short ones between two such waits, and need no more than to be counted.
        """
        if key == self.steady_key and self.returned_ns is not None:
            duration_ns = enter_ns - self.returned_ns
            if SUB_BUCKETS <= duration_ns < self.short_ns:
                shift = duration_ns.bit_length() - SUB_BITS - 1  # bucket_of(), without the cost of a call
                self.counts[(shift << SUB_BITS) + (duration_ns >> shift) - SUB_BUCKETS] += 1
                if polls:
                    self.zero_waits += 1
                self.returned_ns = self.last_ns = leave_ns
                self.since = base + found.end()
                return
        if self.enter_wait(key, enter_ns, base + found.start(1)):
            self.leave_wait(leave_ns, polls, base + found.end())

    def enter_wait(self, key: int, at_ns: int, position: int) -> bool:
        """A wait begins, in the line at `position`.  False: it is not this loop's, but a blocking call."""
        self.steady_key = None
        if key != self.key and not self._adopt(key, position):
            if self.doubtful and key != POLL:  # or that of the loop, and this loop's is the blocking call
                self.untimed += self.returned_ns is not None
                self.rivalled, self.row = True, 0
                self.forget_iteration()
            return False
        self.others = 0
        self.row += 1
        self.doubtful = self.doubtful and self.row < CHANGE_OVER
        if self.held is not None:
            self.settle(at_ns)
        if self.returned_ns is not None:
            self._end_iteration(self.returned_ns, at_ns, position)
            self.returned_ns = None
        if self.held is None and not self.doubtful:
            self.steady_key = key
        return True

    def leave_wait(self, at_ns: int, polls: bool, position: int) -> None:
        """The wait returns, in the line that ends at `position`; `polls` when its timeout was zero."""
        self.zero_waits += polls
        if at_ns < self.last_ns:
            self._went_back(self.last_ns - at_ns)
        else:
            self.returned_ns = at_ns
            self.since = position
        self.last_ns = at_ns

    def settle(self, at_ns: int) -> None:
        """Count the last stall, now that the trace went on after it.

        One damaged stamp far ahead would otherwise be a long stall.
        """
        if self.held is None:
            return
        began_ns, duration_ns, evidence = self.held
        self.held = None
        if at_ns < began_ns + duration_ns:
            self._went_back(began_ns + duration_ns - at_ns)
            return
        self._count(duration_ns)
        found = evidence or Evidence()
        self.owner.keep(self, Stall(0, began_ns, duration_ns, calls=tuple(found.calls), spans=tuple(found.spans)))

    def _went_back(self, by_ns: int) -> None:
        self.backwards += 1
        self.set_back_ns = max(self.set_back_ns, by_ns)

    def _count(self, duration_ns: int) -> None:
        self.counts[bucket_of(duration_ns)] += 1

    def forget_iteration(self) -> None:
        """What is in progress cannot be timed."""
        self.returned_ns = None

    def forget_counts(self) -> None:
        """What was counted so far are no iterations of the loop's, or may be none."""
        self.untimed += self.iterations
        self.counts.clear()
        self.stalls = 0
        self.owner.drop(self)

    def gap(self) -> None:
        """Something of the trace is not known, a wait of this thread perhaps."""
        self.gaps += self.returned_ns is not None
        self.doubtful = self.doubtful or self.key == POLL  # waits by epoll may be hidden
        self.row = 0
        self.returned_ns = None

    @property
    def iterations(self) -> int:
        return sum(self.counts.values())

    @property
    def lost_time(self) -> bool:
        """The clock went so far backwards that nothing tells how long the loop was watched."""
        return self.set_back_ns >= self.owner.threshold_ns

    @property
    def is_loop(self) -> bool:
        waits = self.iterations + self.untimed
        return self.key is not None and waits >= (LEAST_POLLS if self.key == POLL else 1)

    def evidence(self, began_ns: int, at_ns: int, begin: int, end: int) -> Evidence:
        """What the trace says between two positions about the iteration between two moments."""
        found = self.owner.digest(self, begin, end)
        found.calls = found.timed(began_ns, at_ns)
        if found.spans:
            found.spans.append(closing(at_ns))
        return found

    def _adopt(self, key: int, position: int) -> bool:
        """Whether waits under `key` become the loop's."""
        better = self.key is None or (self.key == POLL and key != POLL)
        if not better and key != POLL:
            self.others = self.others + 1 if key == self.other else 1
            self.other = key
            better = self.others >= CHANGE_OVER
        if better:
            if self.key is not None:  # what was counted so far was not the loop's
                self.forget_counts()
                self.untimed = self.zero_waits = 0
            self.doubtful = self.owner.gaps > 0 and self.others < CHANGE_OVER
            self.rivalled, self.row = False, 0
            self.key, self.held, self.opened_at = key, None, position
            self.forget_iteration()
        return better

    def _end_iteration(self, began_ns: int, at_ns: int, position: int) -> None:
        duration_ns = at_ns - began_ns
        if duration_ns < 0:
            self._went_back(-duration_ns)
            return
        if duration_ns < self.owner.threshold_ns:
            self._count(duration_ns)
            return
        evidence = None
        if duration_ns >= self.owner.shortest_kept_ns:
            evidence = self.evidence(began_ns, at_ns, self.since, position)
            torn = evidence.torn
        else:
            torn = self.owner.torn is not None and self.owner.torn(self, self.since, position)
        if torn:
            self.holes += 1
        else:
            self.held = began_ns, duration_ns, evidence


class Rebuild:
    """All threads of one trace."""

    def __init__(self, threshold_ns: int, digest: Digest, torn: Torn | None = None) -> None:
        self.threshold_ns = threshold_ns
        self.digest, self.torn = digest, torn
        self.threads: list[Thread] = []
        self.shortest_kept_ns = threshold_ns
        self.gaps = 0
        self._longest: list[tuple[int, int, Thread, Stall]] = []
        self._kept = 0

    def thread(self, tid: int, image: Image | None = None) -> Thread:
        """A new thread, of a process of its own unless `image` is given."""
        self.threads.append(Thread(self, tid, image or Image(tid)))
        return self.threads[-1]

    def gap(self) -> None:
        """A line could not be read, or events were lost: nothing in progress can be timed any more."""
        self.gaps += 1
        for thread in self.threads:
            thread.gap()

    def keep(self, thread: Thread, stall: Stall) -> None:
        """Keep a stall if it is among the longest."""
        self._kept += 1
        thread.stalls += 1
        entry = (stall.duration_ns, self._kept, thread, stall)
        if len(self._longest) < STALLS_KEPT:
            heapq.heappush(self._longest, entry)
        elif stall.duration_ns > self._longest[0][0]:
            heapq.heapreplace(self._longest, entry)
        if len(self._longest) == STALLS_KEPT:
            self.shortest_kept_ns = self._longest[0][0] + 1

    def drop(self, thread: Thread) -> None:
        """Forget the stalls of a thread whose loop turned out to be another."""
        self._longest = [entry for entry in self._longest if entry[2] is not thread]
        heapq.heapify(self._longest)
        self.shortest_kept_ns = self.threshold_ns

    def recording(
        self, source: Source, form: str, end_ns: int, missing: Iterable[Missing], notes: Iterable[str], lines: int
    ) -> Recording:
        """The nouns.  `end_ns` is when the trace ended: threads that did not exit lived until then.

        `lines` is how many lines it has.
        """
        for thread in self.threads:
            thread.settle(max(end_ns, thread.last_ns))
            if thread.doubtful and (thread.rivalled or self.gaps >= NO_EVIDENCE * lines):
                thread.forget_counts()
        loops = [thread for thread in self.threads if thread.is_loop]
        images = {image: number for number, image in enumerate(dict.fromkeys(thread.image for thread in loops), 1)}
        numbers = {thread: number for number, thread in enumerate(loops, 1)}
        stalls = [stall._replace(loop_id=numbers[thread]) for _, _, thread, stall in self._longest if thread in numbers]
        return recording_of(
            source,
            form,
            self.threshold_ns,
            loops=[_loop(thread, number, images[thread.image], end_ns) for thread, number in numbers.items()],
            processes=[_process(image, number, self.threads) for image, number in images.items()],
            stalls=stalls,
            missing=[*damage(self.gaps, lines), *missing],
            notes=[*notes, *self._remarks(loops)],
            suppressed=sum(thread.stalls for thread in loops) - len(stalls),
        )

    def _remarks(self, loops: list[Thread]) -> Iterator[str]:
        others = [thread for thread in self.threads if not thread.is_loop]
        if others:
            tids = ", ".join(str(thread.tid) for thread in others[:8]) + ", …" * (len(others) > 8)
            lines = plural(sum(thread.lines for thread in others), "line")
            count = plural(len(others), "thread")
            yield f"{count} ran no event loop, a pool perhaps, and did not count: {tids} ({lines})"
        for thread in loops:
            if thread.untimed:
                why = ": an unread line may hide which wait is its loop's own" if thread.doubtful else ""
                which = "not timed" if thread.iterations else "none of them timed"
                yield f"thread {thread.tid}: {plural(thread.untimed, 'iteration')} seen, {which}{why}"
            if thread.gaps:
                yield f"thread {thread.tid}: {plural(thread.gaps, 'iteration')} left out, for lines in them are unknown"
            if thread.holes:
                yield f"thread {thread.tid}: {plural(thread.holes, 'stall')} left out, for calls in them lack one half"
            if thread.backwards:
                why = "the clock went backwards" + TWO_TRACES * thread.lost_time
                yield f"thread {thread.tid}: {plural(thread.backwards, 'iteration')} left out, {why}"


def closing(end_ns: int) -> Span:
    """Goes behind the last span of a stall, so that what follows it is not taken for more of the same."""
    return Span(end_ns, end_ns, 0, (), None, "S", 0, 0, 0)


def _loop(thread: Thread, number: int, process: int, end_ns: int) -> Loop:
    opened_ns = thread.first_ns or 0
    last_ns = max(opened_ns, thread.last_ns, end_ns if thread.ended_ns is None else thread.ended_ns)
    if thread.lost_time:
        last_ns = opened_ns  # so that nobody takes shares of it
    kind, counts = "poll" if thread.key == POLL else "epoll", dict(thread.counts)
    name = f"thread {thread.tid}" if thread.tid else "unnamed thread"
    return Loop(
        number, process, thread.image.pid, thread.tid, kind, name, opened_ns, last_ns, counts, thread.zero_waits
    )


def _process(image: Image, number: int, threads: Iterable[Thread]) -> Process:
    own = [thread for thread in threads if thread.image is image]
    started_ns = min((thread.first_ns for thread in own if thread.first_ns is not None), default=0)
    ended = [thread.ended_ns for thread in own if thread.tid == image.pid and thread.ended_ns is not None]
    program = image.program or (f"pid {image.pid}" if image.pid else "unnamed program")
    return Process(
        number, image.pid, image.parent_pid, program, "", started_ns, ended[-1] if ended else None, image.ending
    )
