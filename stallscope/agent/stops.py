"""Where in a stall the whole process was stopped (SIGSTOP, the freezer), which no counter of its threads tells."""

from __future__ import annotations

from .spans import Span
from .thread_facts import Facts

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import List, Optional, Tuple

    from .pulse import ExactCall

STOPPED = "T"  # the kernel's letter
_SOON_NS = 2_000_000


def divided(span: Span, stop: Tuple[int, int], calls: List[ExactCall]) -> List[Span]:
    """The span, and the part of it in which the process was stopped as a span of its own.

    ``stop`` is known to the nanosecond at its end only; before that the process ran for up to a period of the
    watchdog's. What the thread did not spend otherwise is the stop's.
    """
    after, until = max(stop[0], span.from_ns), min(stop[1], span.to_ns)
    stopped = min(until - after, _unspent(span, stop, calls))
    if stopped <= 0 or span.facts.state == STOPPED:
        return [span]
    return _filled(span, [_part(span, span.from_ns, until - stopped), _stopped(span, until - stopped, until)], until)


def _unspent(span: Span, stop: Tuple[int, int], calls: List[ExactCall]) -> int:
    spent = (span.cpu_ns or 0) + (span.run_delay_ns or 0)
    for call in calls:
        spent += 0 if _was_held_up(call, stop) else _overlap(call, span)
    return span.to_ns - span.from_ns - spent


def _was_held_up(call: ExactCall, stop: Tuple[int, int]) -> bool:
    """A call that goes on when the process does has not waited for that."""
    return bool(call.start_ns < stop[1] <= call.last_ns < stop[1] + _SOON_NS)


def _overlap(call: ExactCall, span: Span) -> int:
    if call.count > 1:
        overlap: int = call.duration_ns if span.from_ns <= call.start_ns < span.to_ns else 0
    else:
        overlap = max(0, min(call.last_ns, span.to_ns) - max(call.start_ns, span.from_ns))
    return overlap


def _filled(span: Span, parts: List[Span], until: int) -> List[Span]:
    """The span's counters belong to what came before the stop, as far as there is room for them."""
    before, stopped = parts
    rest = _part(span, until, span.to_ns)
    before.cpu_ns = _at_most(span.cpu_ns, before.to_ns - before.from_ns)
    before.run_delay_ns = _at_most(span.run_delay_ns, before.to_ns - before.from_ns - (before.cpu_ns or 0))
    rest.cpu_ns = _difference(span.cpu_ns, before.cpu_ns)
    rest.run_delay_ns = _difference(span.run_delay_ns, before.run_delay_ns)
    return [part for part in (before, stopped, rest) if part.to_ns > part.from_ns]


def _part(span: Span, from_ns: int, to_ns: int) -> Span:
    part = Span(from_ns, to_ns, span.stack, span.facts, None)
    part.switches, part.late_ns = span.switches, span.late_ns
    return part


def _stopped(span: Span, from_ns: int, to_ns: int) -> Span:
    part = Span(from_ns, to_ns, span.stack, Facts(None, STOPPED), None)
    part.cpu_ns = part.run_delay_ns = 0
    return part


def _at_most(value: Optional[int], most: int) -> Optional[int]:
    return None if value is None else min(value, most)


def _difference(whole: Optional[int], part: Optional[int]) -> Optional[int]:
    return None if whole is None or part is None else whole - part
