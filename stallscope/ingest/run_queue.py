"""The scheduler's events of one thread: when it was runnable and did not run.

Form of `sched:*` in perf script, with Linux 6.1 and 6.18: `sched:sched_switch: prev_comm=… prev_pid=7 prev_prio=120
prev_state=S ==> next_comm=… next_pid=0 …`, `sched:sched_wakeup: comm=… pid=7 …` (or sched_waking), or, as perf's own
printer has it, `sched:sched_switch: name:7 [120] S ==> swapper/0:0 [120]` and `sched:sched_wakeup: name:7 [120] …`.

A thread switched out in state R waits for a CPU at once; in any other state it waits for what it sleeps on until it is
woken, and then for a CPU.  A sleep whose end nobody recorded counts as sleep.
"""

from __future__ import annotations

import re
from dataclasses import replace

from stallscope.ingest.rebuild import Evidence
from stallscope.recording.nouns import Span, TimedCall

SWITCH = re.compile(
    rb"sched:sched_switch: (?:prev_comm=.{0,16}? prev_pid=(\d{1,10}) prev_prio=-?\d+ prev_state=(\S+) ==> "
    rb"next_comm=.{0,16}? next_pid=(\d{1,10}) |.{0,16}?:(\d{1,10}) \[-?\d+\] (\S+) ==> .{0,16}?:(\d{1,10}) \[)"
)
WOKEN = re.compile(rb"sched:sched_wak(?:eup|ing|eup_new): (?:comm=.{0,16}? pid=(\d{1,10}) |.{0,16}?:(\d{1,10}) \[)")
DESCHEDULES = {b"sched:sched_switch", b"sched:sched_wakeup", b"sched:sched_waking", b"sched:sched_wakeup_new"}
LEAST_NS = 10_000
"""Shorter waits for a CPU are every wake-up's, and not worth an entry."""


class RunQueue:
    """One thread's waits for a CPU and its uninterruptible sleeps, in order."""

    def __init__(self, tid: int) -> None:
        self.delays: list[tuple[int, int]] = []
        """Runnable, [from_ns, to_ns)."""
        self.sleeps: list[tuple[int, int, str]] = []
        """Asleep, [from_ns, to_ns), with the kernel's letter of the state."""
        self._tid = str(tid).encode()
        self._left: tuple[int, str] | None = None
        self._runnable_ns: int | None = None

    def take(self, event: bytes | None, line: bytes, at_ns: int) -> None:
        """One event of the trace, this thread's or another's."""
        if event not in DESCHEDULES:
            return
        if woken := WOKEN.search(line):
            if (woken[1] or woken[2]) == self._tid:
                self._woken(at_ns)
        elif switch := SWITCH.search(line):
            if (switch[1] or switch[4]) == self._tid:
                self._out(at_ns, (switch[2] or switch[5]).decode())
            elif (switch[3] or switch[6]) == self._tid:
                self._in(at_ns)

    def _out(self, at_ns: int, state: str) -> None:
        self._left = at_ns, state
        self._runnable_ns = at_ns if state.startswith("R") else None

    def _woken(self, at_ns: int) -> None:
        if self._left is not None and self._runnable_ns is None:
            self._runnable_ns = at_ns
            self.sleeps.append((self._left[0], at_ns, self._left[1]))

    def _in(self, at_ns: int) -> None:
        if self._left is not None:
            if self._runnable_ns is not None:
                self.delays.append((self._runnable_ns, at_ns))
            else:
                self.sleeps.append((self._left[0], at_ns, self._left[1]))
        self._left = self._runnable_ns = None

    def tell(self, evidence: Evidence) -> None:
        """Put the waits for a CPU into the evidence, and take them out of the calls that they lengthened."""
        delays = [(low, high) for low, high in self.delays if high - low >= LEAST_NS]
        evidence.calls = [_without(call, delays) for call in evidence.calls]
        evidence.spans = [Span(low, high, 1, (), None, "R", 0, high - low, 0) for low, high in delays]
        evidence.spans += [Span(low, high, 1, (), None, "D") for low, high, state in self.sleeps if state[:1] == "D"]
        evidence.spans.sort(key=lambda span: span.from_ns)


def _without(call: TimedCall, delays: list[tuple[int, int]]) -> TimedCall:
    """A call up to where it was over but for a CPU: a wait for one that reaches to the call's end is not the call's."""
    end_ns = call.start_ns + call.duration_ns
    for low, high in delays:
        if call.start_ns <= low and high <= end_ns and end_ns - high < LEAST_NS * 5:
            return replace(call, duration_ns=low - call.start_ns)
    return call
