"""What the exports say of a stall and of what it was made of."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache

from stallscope.analysis.findings import Findings, StallFindings
from stallscope.analysis.ledger import Slice
from stallscope.analysis.resources import plain
from stallscope.analysis.sites import owner, within_handler
from stallscope.recording.nouns import Call, Frame, Recording, Stack
from stallscope.report.words import place


def in_time(findings: Findings) -> list[StallFindings]:
    """The stalls in the order in which they began."""
    return sorted(findings.stalls, key=lambda one: (one.stall.start_ns, one.stall.loop_id))


def heaviest(one: StallFindings) -> Slice:
    """What took most of it."""
    return one.parts[0] if one.parts else Slice(0, "unexplained")


def resource_of(call: Call | None) -> str:
    """What a call touched, by the name that it had then; empty when unknown."""
    return plain(call.resource).name if call and call.resource else ""


def call_text(call: Call) -> str:
    """A call with what it touched: ``openat /data/7.bin``."""
    return f"{call.name} {resource_of(call)}".rstrip()


def time_of_day(recording: Recording, at_ns: int) -> datetime | None:
    """The UTC of a moment of a recording; None where that is unknown, or nonsense."""
    if recording.started_wall_s is None:
        return None
    try:
        return datetime.fromtimestamp(recording.started_wall_s + (at_ns - recording.started_ns) / 1e9, timezone.utc)
    except (OverflowError, ValueError, OSError):  # beyond the year 9999, say: a trace may claim anything
        return None


def frames(stack: Stack) -> list[str]:
    """What the handler put on the stack, innermost first: ``load (app/db.py:20)``, as py-spy writes it."""
    return [_frame(one) for one in within_handler(stack) if owner(one.file) != "agent"]


@lru_cache(maxsize=4096)
def _frame(one: Frame) -> str:
    return f"{one.function} ({place(one.file, one.line)})" if one.file else one.function
