"""The record of a stall that the pulse measured, in the form that ``report`` describes, with the exact calls besides.

``calls`` are ``[start, duration, count, call, stack]``; calls of which there are many in one iteration are summed.
"""

from __future__ import annotations

from . import exact, layout, report, stops
from .spans import Span
from .thread_facts import Facts, call_named

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

    from .pulse import ExactCall, ExactStall, Tick
    from .stacks import Stack

_SINGLE_CALLS = 32  # the longest of one stall; the rest of each kind is summed


def of_exact(agent: Any, state: Any, stall: ExactStall, progress: Any, holders: Any) -> str:
    """``state``: its loop's, or None if that has closed meanwhile; ``progress``: the samples, if there are any."""
    unwatched = not stall.ticks and not stall.calls  # we attached in the middle of it: only the samples tell
    by_samples = unwatched or (state is not None and not exact.takes_stacks(state))
    sampled = progress is not None and progress.spans and by_samples
    spans = progress.spans if sampled else _spans(stall)
    parts, task, told = state.told(stall.start_ns) if state is not None else ([], None, None)
    pauses = agent.pauses.within(state.ident, stall.start_ns, stall.end_ns) if state is not None else []
    record: Dict[str, object] = {
        "loop": (stall.slot_at - layout.LOOPS_AT) // layout.LOOP_BYTES,
        "start": stall.start_ns,
        "end": stall.end_ns,
        "task": stall.task or task or (progress.task if progress is not None else None),
        "handler": report.handler_named(agent, told or _handler(state, stall, spans)),
        "handlers": report.heaviest(agent, parts or stall.parts),
    }
    calls = _named_holders(_bounded(stall.calls), holders)
    for call in calls:
        call.stack = call.stack or _sampled_in(call, spans)
    return report.fitting(record, spans, pauses, layout.RECORD_TEXT_MAX, calls)


def _handler(state: Any, stall: ExactStall, spans: List[Span]) -> Any:
    """Of the longest call whose stack is known, or of the first sample's."""
    calls = [call for call in stall.calls if call.stack]
    stacks = [max(calls, key=lambda call: call.duration_ns).stack] if calls else []
    stacks += [span.stack for span in spans if span.stack]
    for stack in stacks:
        code = exact.handler_on(state, stack, stall.rest)
        if code is not None:
            return code
    return None


def _sampled_in(call: ExactCall, spans: List[Span]) -> Stack:
    """In threads that take no stacks by themselves: the stack of a sample that was taken during the call."""
    for span in spans:
        if span.stack and call.start_ns <= span.to_ns <= call.last_ns and call.count == 1:
            return span.stack
        if span.facts.call and span.facts.call[0] == call.call[0] and span.from_ns <= call.start_ns < span.to_ns:
            return span.stack
    return ()


def _bounded(calls: List[ExactCall]) -> List[ExactCall]:
    ranked = sorted(calls, key=lambda call: -call.duration_ns)
    kept = ranked[:_SINGLE_CALLS]
    sums: Dict[str, ExactCall] = {}
    for call in ranked[_SINGLE_CALLS:]:
        whole = sums.setdefault(call.call[0], call)
        if whole is not call:
            whole.start_ns = min(whole.start_ns, call.start_ns)
            whole.last_ns = max(whole.last_ns, call.last_ns)
            whole.duration_ns += call.duration_ns
            whole.count += call.count
    return sorted(kept + list(sums.values()), key=lambda call: call.start_ns)


def _named_holders(calls: List[ExactCall], holders: Any) -> List[ExactCall]:
    for call in calls:
        if call.call[0] == "gil":
            call.call = call.call[:3] + (holders.between(call.start_ns, call.last_ns),)
    return calls


def _spans(stall: ExactStall) -> List[Span]:
    """Stretches between the watchdog's looks, and from the last one to the end: their counters are exact together."""
    spans: List[Span] = []
    switches: Optional[int] = None
    _share_answers(stall.ticks)
    for tick in stall.ticks:
        tick.at_ns = min(tick.at_ns, stall.end_ns)
        spans.append(_looked_at(tick, switches))
        switches = tick.switches
    spans.append(_last(stall, spans))
    _carry_back(spans)
    if not spans[0].stack:  # what was answered a moment later is as near as we can come
        spans[0].stack = next((span.stack for span in spans if span.stack), ())
    for stop in stall.stops:
        spans = [part for span in spans for part in stops.divided(span, stop, stall.calls)]
    return _merged(spans)


def _share_answers(ticks: List[Tick]) -> None:
    """One stack is asked for at a time. Its answer may come in the middle of the stretch before the next look,
    which then asks anew: the answer that covers most of the stretch describes it.
    """
    stack: Stack = ()
    token = answered_ns = late_ns = 0
    for tick in ticks:
        own = (tick.token, tick.at_ns + tick.late_ns, tick.stack, tick.late_ns)
        if 2 * answered_ns > tick.from_ns + tick.at_ns:
            tick.stack, tick.late_ns = stack, late_ns
        if own[0] not in (0, token):
            token, answered_ns, stack, late_ns = own


def _carry_back(spans: List[Span]) -> None:
    """The kernel counts a wait for a CPU when it is over: what a stretch cannot hold belongs to the one before."""
    excess_ns = 0
    for span in reversed(spans):
        if span.cpu_ns is None or span.run_delay_ns is None:
            excess_ns = 0
            continue
        waited_ns = span.run_delay_ns + excess_ns
        span.run_delay_ns = min(waited_ns, max(0, span.to_ns - span.from_ns - span.cpu_ns))
        excess_ns = waited_ns - span.run_delay_ns


def _looked_at(tick: Tick, switches: Optional[int]) -> Span:
    span = Span(tick.from_ns, tick.at_ns, tick.stack, Facts(call_named(tick.system_call), tick.state), None)
    span.cpu_ns, span.run_delay_ns, span.late_ns = tick.cpu_ns, tick.run_delay_ns, tick.late_ns
    if switches is not None and tick.switches is not None:
        span.switches = tick.switches - switches
    return span


def _last(stall: ExactStall, spans: List[Span]) -> Span:
    begun = spans[-1].to_ns if spans else stall.start_ns
    stack: Stack = next((span.stack for span in reversed(spans) if span.stack), ())
    if not stack:
        stack = next((call.stack for call in reversed(stall.calls) if call.stack), ())
    span = Span(begun, stall.end_ns, stack, Facts(None, "R"), None)
    span.cpu_ns = _rest(stall.cpu_ns, [tick.cpu_ns for tick in stall.ticks], stall.end_ns - begun)
    span.run_delay_ns = _rest(stall.run_delay_ns, [tick.run_delay_ns for tick in stall.ticks], stall.end_ns - begun)
    span.late_ns = spans[-1].late_ns if spans else 0
    return span


def _rest(whole: Optional[int], parts: List[Optional[int]], at_most: int) -> Optional[int]:
    if whole is None or None in parts:
        return None
    return min(max(whole - sum([part or 0 for part in parts]), 0), at_most)


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
    return same and (one.facts.state == stops.STOPPED) == (other.facts.state == stops.STOPPED)
