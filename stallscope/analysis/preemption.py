"""How much of a call's time its thread merely waited for a CPU.

A call is timed by the wall. On a busy machine its thread may be taken off the CPU in the middle of it, or may have to
wait for one when what it waited for has come. The counters of a span tell how long the thread ran, and how long it was
ready to run and did not; what does not fit into the time of the span outside of calls was spent inside of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from stallscope.recording.nouns import Call, Span, Stall, TimedCall

_WAITS = frozenset({"gil", "select", "pselect6", "poll", "ppoll", "nanosleep", "clock_nanosleep", "wait4", "waitid"})
_LOCKS = ("futex", "sem_", "pthread_")
STOPPED = ("T", "t")  # states of a thread, by the kernel's letters


def is_lock(call: Call) -> bool:
    """Whether a call waits for another thread (and not for a file that somebody locked)."""
    return call.name.startswith(_LOCKS)


def merely_waits(call: Call) -> bool:
    """Whether a thread uses next to no CPU time in such a call, however long it takes."""
    return call.name in _WAITS or is_lock(call)


def waited_for_cpu(stall: Stall) -> Mapping[int, int]:
    """Least ns of that kind, by the index of the call in `stall.calls`; sums of many calls are left out."""
    single = [(index, timed) for index, timed in enumerate(stall.calls) if timed.calls == 1]
    waited: dict[int, int] = {}
    for span in stall.spans:
        if not span.run_delay_ns or not single:
            continue
        inside = {index: _overlap(span, timed) for index, timed in single}
        ready_ns = max(0, _outside(span, inside.values()) - _ran_outside(span, inside, stall.calls))
        for index, ns in _shared_out(inside, span.run_delay_ns - ready_ns).items():
            waited[index] = waited.get(index, 0) + ns
    return waited


class Idle:
    """The time in the spans of a stall in which their thread neither ran, nor was ready to, nor was in a call that was
    timed by itself: so much of it the sums of short calls waited."""

    def __init__(self, stall: Stall, waited: Mapping[int, int]) -> None:
        """`waited` is what ``waited_for_cpu`` says of this stall."""
        self.is_known = bool(stall.spans) and all(span.cpu_ns is not None for span in stall.spans)
        """Whether all of the stall has counters."""
        blocked = [
            (timed, max(0, timed.duration_ns - waited.get(index, 0)))
            for index, timed in enumerate(stall.calls)
            if timed.calls == 1
        ]
        self._left = [[span.from_ns, span.to_ns, _idle(span, blocked)] for span in stall.spans if self.is_known]

    def take(self, from_ns: int, ns: int) -> Iterator[tuple[int, int, int]]:
        """Where from then on there is room for so much: (from, to, ns), less than that in all if there is not."""
        for part in self._left:
            taken = min(ns, part[2]) if part[1] > from_ns else 0
            part[2] -= taken
            ns -= taken
            if taken:
                yield max(part[0], from_ns), part[1], taken


def _idle(span: Span, blocked: Iterable[tuple[TimedCall, int]]) -> int:
    """`blocked` are single calls, and the ns of each that were no wait for a CPU."""
    if span.state in STOPPED:
        return 0
    idle_ns = span.to_ns - span.from_ns - (span.cpu_ns or 0) - (span.run_delay_ns or 0)
    for timed, ns in blocked:
        idle_ns -= _overlap(span, timed) * ns // max(1, timed.duration_ns)
    return max(0, idle_ns)


def _overlap(span: Span, timed: TimedCall) -> int:
    end_ns = min(span.to_ns, timed.start_ns + timed.duration_ns)
    return max(0, end_ns - max(span.from_ns, timed.start_ns))


def _outside(span: Span, inside: Iterable[int]) -> int:
    return max(0, span.to_ns - span.from_ns - sum(inside))


def _ran_outside(span: Span, inside: Mapping[int, int], calls: Sequence[TimedCall]) -> int:
    """Least CPU time of the span that was not spent in its calls."""
    working = sum(ns for index, ns in inside.items() if not merely_waits(calls[index].call))
    return max(0, (span.cpu_ns or 0) - working)


def _shared_out(inside: Mapping[int, int], excess_ns: int) -> Mapping[int, int]:
    """The excess, divided among the calls in proportion to their part of the span."""
    whole = sum(inside.values())
    excess_ns = min(excess_ns, whole)
    if excess_ns <= 0:
        return {}
    return {index: excess_ns * ns // whole for index, ns in inside.items() if ns}
