"""Holds what stallscope found against the truth that the program wrote.

Lengths are compared as intervals, for the program cannot look at the loop's own clockwork. The iteration is no shorter
than the handler, and no longer than from before the handler was due to after it was over; what the ledger gives to the
cause is no shorter than what the thread's own counters leave to it, and no longer than from before the blocking
statement to after it (with what it waited for the GIL after the call itself, which the ledger tells apart). What is
found may lie outside by 1 % or 0.2 ms, whichever is more.

Call, line and resource are those of the culprit that took most of this one stall: a culprit of the whole recording is
folded away where others took much more time, which is up to the other kinds and to the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stallscope.analysis.culprits import blame, heaviest_first, rank
from stallscope.analysis.findings import Culprit, Findings, StallFindings
from stallscope.analysis.ledger import divide
from tests.zoo.program.truth import Truth

_CLOSE_NS = 200_000
_CLOSE_SHARE = 0.01
_LARGE_PART = 0.9
ASPECTS = ("found", "length", "cause", "time", "call", "line", "resource")
_WITHOUT_CALL = ("gil",)  # waits that are no system call of the program's: named or not


@dataclass(frozen=True)
class Verdict:
    """What was right of what was found for one stall; ``said`` is what was found, in words."""

    kind: str
    found: bool
    length: bool = False
    """The iteration's."""
    cause: bool = False
    time: bool = False
    """That of the cause, in the ledger."""
    call: bool = False
    line: bool = False
    resource: bool = False
    unexplained: float = 1.0
    truth_ms: float = 0.0
    said: str = "nothing"

    @property
    def right(self) -> bool:
        """All of it."""
        return all(getattr(self, aspect) for aspect in ASPECTS)


def judge(truths: Sequence[Truth], findings: Findings) -> list[Verdict]:
    """A verdict on each truth that is sure."""
    return [_verdict(truth, match(truth, findings), findings) for truth in truths if truth.is_sure]


def match(truth: Truth, findings: Findings) -> StallFindings | None:
    """What was found of that stall."""
    best = max(findings.stalls, key=lambda found: _overlap_ns(truth, found), default=None)
    return best if best is not None and _overlap_ns(truth, best) > 0 else None


def unmatched(truths: Sequence[Truth], findings: Findings) -> Iterator[StallFindings]:
    """Stalls that nobody made."""
    return (found for found in findings.stalls if all(_overlap_ns(truth, found) <= 0 for truth in truths))


def _overlap_ns(truth: Truth, found: StallFindings) -> int:
    start = found.stall.start_ns
    return min(truth.left_ns, start + found.stall.duration_ns) - max(truth.entered_ns, start)


def _verdict(truth: Truth, found: StallFindings | None, findings: Findings) -> Verdict:
    if found is None:
        return Verdict(truth.kind, False, truth_ms=(truth.end_ns - truth.start_ns) / 1e6)
    culprit = _culprit(found, findings.recording.threshold_ns)
    handler_ns, around_ns = truth.left_ns - truth.entered_ns, truth.resumed_ns - truth.armed_ns
    return Verdict(
        kind=truth.kind,
        found=True,
        length=_within(handler_ns, found.stall.duration_ns, around_ns),
        cause=max(found.ledger, key=lambda cause: found.ledger[cause]) == truth.cause,
        time=_has_time(truth, found),
        call=_has_call(truth, culprit),
        line=_has_line(truth, culprit),
        resource=truth.resource in ((culprit.resource if culprit else None) or ""),
        unexplained=found.ledger.get("unexplained", 0) / found.stall.duration_ns,
        truth_ms=(truth.end_ns - truth.start_ns) / 1e6,
        said=_in_words(truth, found, culprit),
    )


def _culprit(found: StallFindings, threshold_ns: int) -> Culprit | None:
    blames = heaviest_first(blame([found.stall], [divide(found.stall, threshold_ns)]))
    culprits, _ = rank(blames, found.stall.duration_ns)
    return culprits[0] if culprits else None


def _within(least_ns: float, ns: int, most_ns: int) -> bool:
    return least_ns - _margin_ns(least_ns) <= ns <= most_ns + _margin_ns(most_ns)


def _margin_ns(ns: float) -> float:
    return max(_CLOSE_NS, _CLOSE_SHARE * ns)


def _has_time(truth: Truth, found: StallFindings) -> bool:
    """The wait for the GIL after a call may have come before the truth looked at its clock, or after."""
    given_ns = sum(ns for cause, ns in found.ledger.items() if cause == truth.cause)
    gil_ns = found.ledger.get("gil-wait", 0) if truth.nature == "blocked" else 0
    least_ns, most_ns = truth.lasting_ns * (1 if truth.exact else _LARGE_PART), truth.end_ns - truth.start_ns
    return bool(least_ns - _margin_ns(least_ns) <= given_ns + gil_ns and given_ns <= most_ns + _margin_ns(most_ns))


def _has_call(truth: Truth, culprit: Culprit | None) -> bool:
    if culprit is None:
        return not truth.lines
    optional = not truth.calls or all(call in _WITHOUT_CALL for call in truth.calls)
    return culprit.syscall in truth.calls or (optional and culprit.syscall is None)


def _has_line(truth: Truth, culprit: Culprit | None) -> bool:
    where = culprit.location if culprit else None
    if not truth.lines:
        return where is None
    return where is not None and where.file == truth.file and truth.lines[0] <= where.line <= truth.lines[1]


def _in_words(truth: Truth, found: StallFindings, culprit: Culprit | None) -> str:
    ledger = ", ".join(f"{cause} {ns / 1e6:.2f}" for cause, ns in found.ledger.items())
    where = culprit.location if culprit else None
    named = (
        (culprit.cause, culprit.syscall, culprit.resource, where and (where.function, where.line)) if culprit else ""
    )
    real = f"truth: {truth.cause} {truth.lasting_ns / 1e6:.2f} of {(truth.left_ns - truth.entered_ns) / 1e6:.2f}"
    return f"{found.stall.duration_ns / 1e6:.2f} ms ({ledger}) {named}; {real} {truth.lines}"
