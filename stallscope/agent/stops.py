"""Where in a stall the whole process was stopped (SIGSTOP, the freezer), which no counter of its threads tells."""

from __future__ import annotations

from .spans import Span
from .thread_facts import Facts

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import List, Tuple

    from .pulse import ExactCall

    Stop = Tuple[int, int, int]

STOPPED = "T"  # the kernel's letter
_SOON_NS = 2_000_000


def divided(spans: List[Span], stops: List[Stop], calls: List[ExactCall]) -> List[Span]:
    """The spans of a stall, with those in which the process was stopped as spans of their own.

    A stop is (after, until, seen): the watchdog ran until ``after``, and again at ``seen``; between them the process
    was stopped, until ``until`` as a rule. For how long is what the thread did not spend otherwise, in all of the
    stall: the kernel counts a wait for a CPU when it is over, so that one look's counters are not enough. Right after
    a stop all threads want the GIL and a CPU at once: of such a wait for the GIL as much as all waits for a CPU took is
    counted as one of these. ``spans`` are settled.
    """
    for stop in stops:
        after, seen = max(stop[0], spans[0].from_ns), min(stop[2], spans[-1].to_ns)
        stopped = min(seen - after, _unspent(spans, stop, calls))
        if stopped > 0:
            until = min(max(stop[1], after + stopped), seen)
            spans = _with_stop(spans, until - stopped, until)
    return spans


def is_stop(span: Span) -> bool:
    """Whether it is one of those in which the process was stopped."""
    return bool(span.facts.state == STOPPED)


def _unspent(spans: List[Span], stop: Stop, calls: List[ExactCall]) -> int:
    calls = [call for call in calls if not _was_held_up(call, stop)]
    unspent = gil_ns = delay_ns = 0
    for span in spans:
        if is_stop(span):
            continue
        idle = span.to_ns - span.from_ns - (span.cpu_ns or 0) - (span.run_delay_ns or 0)
        unspent += max(0, idle - sum([overlap(call, span) for call in calls if call.call[0] != "gil"]))
        gil_ns += sum([overlap(call, span) for call in calls if call.call[0] == "gil"])
        delay_ns += span.run_delay_ns or 0
    return max(0, unspent - max(0, gil_ns - delay_ns))


def overlap(call: ExactCall, span: Span) -> int:
    """How much of the call lies in the span; of a sum of calls, all where the first was."""
    if call.count > 1:
        within: int = call.duration_ns if span.from_ns <= call.start_ns < span.to_ns else 0
    else:
        within = max(0, min(call.last_ns, span.to_ns) - max(call.start_ns, span.from_ns))
    return within


def _was_held_up(call: ExactCall, stop: Stop) -> bool:
    """A call that goes on when the process does has not waited for that."""
    return bool(call.start_ns < stop[1] <= call.last_ns < stop[1] + _SOON_NS)


def _with_stop(spans: List[Span], from_ns: int, to_ns: int) -> List[Span]:
    stack = next(span.stack for span in spans if span.to_ns >= to_ns)
    stop = Span(from_ns, to_ns, stack, Facts(None, STOPPED), None)
    stop.cpu_ns = stop.run_delay_ns = 0
    parts = [part for span in spans for part in _around(span, from_ns, to_ns)]
    return sorted([*parts, stop], key=lambda part: (part.from_ns, part.to_ns))


def _around(span: Span, from_ns: int, to_ns: int) -> List[Span]:
    """What the stop leaves of a span: two parts at most, one at least, though it be empty, for it has the counters."""
    edges = [(span.from_ns, min(span.to_ns, from_ns)), (max(span.from_ns, to_ns), span.to_ns)]
    parts = [span.part(lo, hi) for lo, hi in edges if lo < hi] or [span.part(from_ns, from_ns)]
    if len(parts) > 1 and span.cpu_ns is not None:
        parts[0].cpu_ns = min(span.cpu_ns, from_ns - span.from_ns)
        parts[1].cpu_ns = span.cpu_ns - parts[0].cpu_ns
    if len(parts) > 1 and span.run_delay_ns is not None:
        parts[0].run_delay_ns = min(span.run_delay_ns, from_ns - span.from_ns - (parts[0].cpu_ns or 0))
        parts[1].run_delay_ns = span.run_delay_ns - parts[0].run_delay_ns
    return parts
