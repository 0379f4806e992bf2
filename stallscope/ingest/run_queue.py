"""The scheduler's events of one thread: when it was runnable and did not run.

Form of `sched:*` in perf script, with Linux 6.1 and 6.18: `sched:sched_switch: prev_comm=… prev_pid=7 prev_prio=120
prev_state=S ==> next_comm=… next_pid=0 …`, `sched:sched_wakeup: comm=… pid=7 …` (or sched_waking), or, as perf's own
printer has it, `sched:sched_switch: name:7 [120] S ==> swapper/0:0 [120]` and `sched:sched_wakeup: name:7 [120] …`.

A thread switched out in state R waits for a CPU at once; in any other state it waits for what it sleeps on until it is
woken, and then for a CPU.  A sleep whose end nobody recorded counts as sleep.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from stallscope.ingest.rebuild import Evidence
from stallscope.recording.nouns import Span, TimedCall

_STATE = rb"([A-Za-z+|]{1,8})"
EVENT = re.compile(
    rb"sched:sched_(?:switch: (?:prev_comm=.{0,16}? prev_pid=(\d{1,10}) prev_prio=-?\d{1,4} prev_state=" + _STATE +
    rb" ==> next_comm=.{0,16}? next_pid=(\d{1,10}) |"
    rb".{0,16}?:(\d{1,10}) \[-?\d{1,4}\] " + _STATE + rb" ==> .{0,16}?:(\d{1,10}) \[)|"
    rb"wak(?:eup|ing|eup_new): (?:comm=.{0,16}? pid=(\d{1,10}) |.{0,16}?:(\d{1,10}) \[))"
)  # fmt: skip
"""Groups: of a switch who left, in which state, and who came, in both forms; of a wake-up who was woken."""
LEAST_NS = 10_000
"""Shorter waits for a CPU are every wake-up's, and not worth an entry."""


Tell = Callable[[int, int, str], None]
"""Is told of each time off the CPU: from_ns, to_ns, and the kernel's letter of the state, R for runnable."""


class OffCpu:
    """When one thread left the CPU, why, and when it was woken."""

    __slots__ = ("_left_ns", "_runnable_ns", "_state", "_tell")

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.forget()

    def forget(self) -> None:
        """Events were lost: what it does now is unknown."""
        self._left_ns: int | None = None
        self._runnable_ns: int | None = None
        self._state = ""

    @property
    def is_away(self) -> bool:
        return self._left_ns is not None

    def leave(self, at_ns: int, state: str) -> None:
        self._left_ns, self._state = at_ns, state
        self._runnable_ns = at_ns if state[:1] == "R" else None

    def wake(self, at_ns: int) -> None:
        if self._left_ns is not None and self._runnable_ns is None:
            self._runnable_ns = at_ns
            self._tell(self._left_ns, at_ns, self._state[:1])

    def come(self, at_ns: int) -> None:
        if self._runnable_ns is not None:
            self._tell(self._runnable_ns, at_ns, "R")
        elif self._left_ns is not None:
            self._tell(self._left_ns, at_ns, self._state[:1])
        self._left_ns = self._runnable_ns = None


class RunQueue:
    """What one thread waited for in one iteration: a CPU, or in a sleep that no signal interrupts."""

    def __init__(self, tid: int) -> None:
        self._times: list[tuple[int, int, str]] = []
        self._off_cpu = OffCpu(lambda *time: self._times.append(time))
        self._tid = str(tid).encode()

    def take(self, line: bytes, at_ns: int) -> None:
        """One line of the trace, about this thread or another."""
        found = EVENT.search(line)
        if not found:
            return
        if (found[7] or found[8]) == self._tid:
            self._off_cpu.wake(at_ns)
        elif (found[1] or found[4]) == self._tid:
            self._off_cpu.leave(at_ns, (found[2] or found[5]).decode())
        elif (found[3] or found[6]) == self._tid:
            self._off_cpu.come(at_ns)

    def runs(self) -> bool:
        """The thread does something: False when nobody saw it come back to a CPU."""
        seen = not self._off_cpu.is_away
        self._off_cpu.forget()
        return seen

    def tell(self, evidence: Evidence) -> None:
        """Put the waits for a CPU into the evidence, and take them out of the calls that they lengthened."""
        delays = [(low, high) for low, high, state in self._times if state == "R" and high - low >= LEAST_NS]
        evidence.calls = [_without(call, delays) for call in evidence.calls]
        evidence.spans = [span_of(*time) for time in self._times if time[2] in "RD" and time[1] - time[0] >= LEAST_NS]


def span_of(from_ns: int, to_ns: int, state: str) -> Span:
    """A time off the CPU, as the ledger reads it."""
    if state == "R":
        return Span(from_ns, to_ns, 1, (), None, "R", 0, to_ns - from_ns, 0)
    return Span(from_ns, to_ns, 1, (), None, state)


def _without(call: TimedCall, delays: list[tuple[int, int]]) -> TimedCall:
    """A call up to where it was over but for a CPU: a wait for one that reaches to the call's end is not the call's."""
    end_ns = call.start_ns + call.duration_ns
    for low, high in delays:
        if call.start_ns <= low and high <= end_ns and end_ns - high < LEAST_NS * 5:
            return call._replace(duration_ns=low - call.start_ns)
    return call
