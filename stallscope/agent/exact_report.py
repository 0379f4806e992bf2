"""The record of a stall that the pulse measured, in the form that ``report`` describes, with the exact calls besides.

``calls`` are ``[start, duration, count, call, stack]``; calls of which there are many in one iteration are summed.
"""

from __future__ import annotations

from . import exact, exact_spans, layout, report

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List

    from .pulse import ExactCall, ExactStall
    from .spans import Span
    from .stacks import Stack

_SINGLE_CALLS = 32  # the longest of one stall; the rest of each kind is summed


def of_exact(agent: Any, state: Any, stall: ExactStall, progress: Any, holders: Any) -> str:
    """``state``: its loop's, or None if that has closed meanwhile; ``progress``: the samples, if there are any."""
    unwatched = not stall.ticks and not stall.calls  # we attached in the middle of it: only the samples tell
    by_samples = unwatched or (state is not None and not exact.takes_stacks(state))
    sampled = progress is not None and progress.spans and by_samples
    spans = progress.spans if sampled else exact_spans.of_exact(stall)
    parts, task, told = state.told(stall.start_ns) if state is not None else ([], None, None)
    pauses = agent.pauses.within(state.ident, stall.start_ns, stall.end_ns) if state is not None else []
    slot_at = stall.slot_at if state is None else state.loop_at
    record: Dict[str, object] = {
        "loop": (slot_at - layout.LOOPS_AT) // layout.LOOP_BYTES,
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
