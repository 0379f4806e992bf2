"""Stretches of a stall that the pulse measured: between the watchdog's looks, and from the last one to the end.

The counters of all of it are exact, for the thread itself read them at both ends. Those of one look are not: a wait for
a CPU is counted when it is over, and the stack that a look asked for is of the moment when it was answered.
"""

from __future__ import annotations

from . import stops
from .spans import Span
from .thread_facts import Facts, call_named
from .turns import turned

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

    from .pulse import ExactStall, Tick
    from .stacks import Stack


def of_exact(stall: ExactStall) -> List[Span]:
    """They follow each other without a gap, and what was counted in them sums to what was counted in the stall."""
    spans = _looked_at(stall)
    _settle(spans)
    spans = stops.divided(spans, stall.stops, stall.calls)
    _settle(spans)
    stopped_ns = sum([span.to_ns - span.from_ns for span in spans if stops.is_stop(span)])
    for span in spans:  # for so long nobody could answer
        span.late_ns = max(0, span.late_ns - stopped_ns)
    spans = turned(spans, stall.calls)
    _settle(spans)  # a part may have got more than it can hold
    return _merged(spans)


def _looked_at(stall: ExactStall) -> List[Span]:
    spans: List[Span] = []
    switches: Optional[int] = None
    _bound(stall)
    _share_answers(stall.ticks)
    for tick in stall.ticks:
        spans.append(_look(tick, switches))
        switches = tick.switches
    spans.append(_last(stall, spans))
    _lend_stacks(spans)
    return spans


def _bound(stall: ExactStall) -> None:
    """A look may come when the iteration has ended, and so may the answer to what it, or one before it, asked for."""
    answers: Dict[int, Tuple[int, int]] = {}  # by token: late_ns, answered_ns; of the look that asked
    for tick in stall.ticks:
        tick.at_ns = min(tick.at_ns, stall.end_ns)
        late_ns = min(tick.late_ns, stall.end_ns - tick.at_ns)
        own = (late_ns, tick.at_ns + late_ns)
        tick.late_ns, tick.answered_ns = answers.setdefault(tick.token, own) if tick.token else own


def _share_answers(ticks: List[Tick]) -> None:
    """One stack is asked for at a time. Its answer may come in the middle of the stretch before the next look,
    which then asks anew: the answer that covers most of the stretch describes it.
    """
    stack: Stack = ()
    answered_ns = late_ns = 0
    for tick in ticks:
        own = (tick.stack, tick.late_ns, tick.answered_ns)
        if 2 * answered_ns > tick.from_ns + tick.at_ns:
            tick.stack, tick.late_ns, tick.answered_ns = stack, late_ns, answered_ns
        if tick.token:
            stack, late_ns, answered_ns = own


def _lend_stacks(spans: List[Span]) -> None:
    """What was answered before is as near as we can come where nobody answered; at first, what was answered next."""
    stack: Stack = next((span.stack for span in spans if span.stack), ())
    answered_ns = spans[0].to_ns
    for span in spans:
        if not span.stack and span.facts.call is None:
            span.stack, span.answered_ns = stack, answered_ns
        if span.stack:
            stack, answered_ns = span.stack, span.answered_ns


def _look(tick: Tick, switches: Optional[int]) -> Span:
    span = Span(tick.from_ns, tick.at_ns, tick.stack, Facts(call_named(tick.system_call), tick.state), None)
    span.cpu_ns, span.run_delay_ns = tick.cpu_ns, tick.run_delay_ns
    span.late_ns, span.answered_ns = tick.late_ns, tick.answered_ns
    if switches is not None and tick.switches is not None:
        span.switches = tick.switches - switches
    return span


def _last(stall: ExactStall, spans: List[Span]) -> Span:
    begun = spans[-1].to_ns if spans else stall.start_ns
    stack: Stack = next((span.stack for span in reversed(spans) if span.stack), ())
    if not stack:
        stack = next((call.stack for call in reversed(stall.calls) if call.stack), ())
    span = Span(begun, stall.end_ns, stack, Facts(None, "R"), None)
    span.cpu_ns = _rest(stall.cpu_ns, [tick.cpu_ns for tick in stall.ticks])
    span.run_delay_ns = _rest(stall.run_delay_ns, [tick.run_delay_ns for tick in stall.ticks])
    span.late_ns = spans[-1].late_ns if spans else 0
    span.answered_ns = spans[-1].answered_ns if spans else stall.end_ns
    return span


def _rest(whole: Optional[int], parts: List[Optional[int]]) -> Optional[int]:
    if whole is None or None in parts:
        return None
    return max(whole - sum([part or 0 for part in parts]), 0)


def _merged(spans: List[Span]) -> List[Span]:
    kept: List[Span] = []
    for span in spans:
        if span.from_ns >= span.to_ns:
            continue
        if kept and _alike(kept[-1], span):
            kept[-1].absorb(span)
        else:
            kept.append(span)
    return kept


def _alike(one: Span, other: Span) -> bool:
    same = one.stack == other.stack and one.facts.call == other.facts.call
    return same and stops.is_stop(one) == stops.is_stop(other)


def _settle(spans: List[Span]) -> None:
    """What a stretch cannot hold of its counters belongs to the one before; where the first is full, to the next."""
    _carry(spans, *_carry(list(reversed(spans)), 0, 0))


def _carry(spans: List[Span], cpu_ns: int, delay_ns: int) -> Tuple[int, int]:
    """CPU time and waits for a CPU that come from before the first of them; returns what is left after the last."""
    for span in spans:
        if span.cpu_ns is None or span.run_delay_ns is None:
            cpu_ns = delay_ns = 0
            continue
        room = 0 if stops.is_stop(span) else span.to_ns - span.from_ns
        ran_ns, waited_ns = span.cpu_ns + cpu_ns, span.run_delay_ns + delay_ns
        span.cpu_ns = min(ran_ns, room)
        span.run_delay_ns = min(waited_ns, room - span.cpu_ns)
        cpu_ns, delay_ns = ran_ns - span.cpu_ns, waited_ns - span.run_delay_ns
    return cpu_ns, delay_ns
