"""When the loop's thread turned from one piece of code to another, between two looks that met it in both.

A look asks for the thread's stack, and is answered a moment later: the stack is of the moment of the answer. Until the
next answer the thread may have turned at any moment: half of that time is the former code's. C code that does not give
the GIL away lets nobody answer: a late answer comes as it returns, and what a late answer tells began before it was
asked for. Only time outside of calls is divided: of a call the pulse knows when it was, and whose.
"""

from __future__ import annotations

from .spans import Span, difference
from .stops import is_stop, overlap

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import List, Optional, Tuple

    from .pulse import ExactCall

    Turn = Tuple[int, Span]  # when, and the stretch of whose code the thread runs from then on

_LATE_NS = 10_000_000  # two switches of CPython's: who waits longer for the GIL is kept from it by C code
_MATTERS_NS = 100_000  # shorter calls decide nothing, and there may be hundreds


def turned(spans: List[Span], calls: List[ExactCall]) -> List[Span]:
    """The spans, cut where the thread turned."""
    parts: List[Span] = []
    turns: List[Turn] = []
    before = spans[0]
    calls = [call for call in calls if call.count == 1 and call.duration_ns >= _MATTERS_NS]
    for span in spans:
        if not _computes(span, calls):
            turns = []
        elif not turns:
            turns = [(span.from_ns, span)]
        elif before.stack != span.stack:
            turns.append((max(turns[-1][0], _turn_ns(before, span)), span))
        before = span
        parts += _cut(span, turns, calls) if turns else [span]
    return parts


def _computes(span: Span, calls: List[ExactCall]) -> bool:
    if span.cpu_ns is None or not span.stack or is_stop(span):
        return False
    return 2 * (span.cpu_ns + (span.run_delay_ns or 0)) > _free_ns(span, calls)


def _free_ns(span: Span, calls: List[ExactCall]) -> int:
    """How much of it was outside of calls."""
    return span.to_ns - span.from_ns - sum([overlap(call, span) for call in calls])


def _turn_ns(before: Span, span: Span) -> int:
    if before.late_ns > _LATE_NS:
        return before.answered_ns
    asked_ns = span.answered_ns - span.late_ns
    return (before.answered_ns + (asked_ns if span.late_ns > _LATE_NS else span.answered_ns)) // 2


def _cut(span: Span, turns: List[Turn], calls: List[ExactCall]) -> List[Span]:
    ends = [at for at, _ in turns[1:]] + [span.to_ns]
    pieces = [(max(at, span.from_ns), min(ends[i], span.to_ns), source) for i, (at, source) in enumerate(turns)]
    pieces = [piece for piece in pieces if piece[0] < piece[1]]
    parts = [_labelled(span, *piece) for piece in pieces]
    free_ns = _free_ns(span, calls)
    for part in parts[:-1]:  # what is left is the last one's, so that nothing is lost
        _share(part, _free_ns(part, calls), span, free_ns)
        parts[-1].cpu_ns = difference(parts[-1].cpu_ns, part.cpu_ns)
        parts[-1].run_delay_ns = difference(parts[-1].run_delay_ns, part.run_delay_ns)
    return parts or [span]


def _labelled(span: Span, from_ns: int, to_ns: int, source: Span) -> Span:
    part = span.part(from_ns, to_ns)
    if part.stack != source.stack:
        part.stack, part.late_ns = source.stack, source.late_ns
    return part


def _share(part: Span, free_ns: int, whole: Span, whole_free_ns: int) -> None:
    part.switches = None
    part.cpu_ns = _of(whole.cpu_ns, free_ns, whole_free_ns)
    part.run_delay_ns = _of(whole.run_delay_ns, part.to_ns - part.from_ns, whole.to_ns - whole.from_ns)  # in calls, too


def _of(counted: Optional[int], share: int, whole: int) -> Optional[int]:
    return None if counted is None else counted * share // whole if whole > 0 else 0
