"""How much of a call's time its thread merely waited for a CPU.

A call is timed by the wall. On a busy machine its thread may be taken off the CPU in the middle of it, or may have to
wait for one when what it waited for has come. The counters of a span tell how long the thread was ready to run and did
not; what does not fit into the time of the span outside of calls was spent inside of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stallscope.recording.nouns import Span, Stall, TimedCall


def waited_for_cpu(stall: Stall) -> Mapping[int, int]:
    """Least ns of that kind, by the index of the call in `stall.calls`; sums of many calls are left out."""
    single = [(index, timed) for index, timed in enumerate(stall.calls) if timed.count == 1]
    waited: dict[int, int] = {}
    for span in stall.spans:
        if not span.run_delay_ns or not single:
            continue
        inside = {index: _overlap(span, timed) for index, timed in single}
        for index, ns in _shared_out(inside, span.run_delay_ns - _outside(span, inside.values())).items():
            waited[index] = waited.get(index, 0) + ns
    return waited


def _overlap(span: Span, timed: TimedCall) -> int:
    end_ns = min(span.to_ns, timed.start_ns + timed.duration_ns)
    return max(0, end_ns - max(span.from_ns, timed.start_ns))


def _outside(span: Span, inside: Iterable[int]) -> int:
    return max(0, span.to_ns - span.from_ns - sum(inside))


def _shared_out(inside: Mapping[int, int], excess_ns: int) -> Mapping[int, int]:
    """The excess, divided among the calls in proportion to their part of the span."""
    whole = sum(inside.values())
    excess_ns = min(excess_ns, whole)
    if excess_ns <= 0:
        return {}
    return {index: excess_ns * ns // whole for index, ns in inside.items() if ns}
