"""Stalls as CSV (RFC 4180): one row each, in the order of time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO

from stallscope.analysis.findings import Findings, StallFindings
from stallscope.analysis.sites import location
from stallscope.recording.nouns import Recording
from stallscope.report.json_values import milliseconds, seconds
from stallscope.report.stall_parts import heaviest, in_time, resource_of, time_of_day

COLUMNS = (
    "time",  # UTC; empty where the recording does not know it
    "start_s",  # since the recording began
    "duration_ms",
    "loop",
    "pid",
    "handler",
    "cause",  # what took most of it: this and the columns that follow
    "cause_ms",
    "call",
    "resource",
    "file",
    "line",
    "function",
    "culprit",  # its rank in the report; empty for one of the others
)
"""An unknown value is an empty field."""


def render(findings: Findings) -> str:
    """A heading and one row a stall; lines end in CR LF, as the RFC has it."""
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_rows(findings))
    return text.getvalue()


def _rows(findings: Findings) -> Iterator[tuple[object, ...]]:
    pids = {one.loop.id: one.loop.pid for one in findings.loops}
    for one in in_time(findings):
        yield (
            _time(findings.recording, one.stall.start_ns),
            seconds(one.stall.start_ns - findings.recording.started_ns),
            milliseconds(one.stall.duration_ns),
            one.stall.loop_id,
            pids.get(one.stall.loop_id) or None,
            one.handler.name if one.handler else None,
            *_blame(one),
            one.culprit,
        )


def _blame(one: StallFindings) -> tuple[object, ...]:
    part = heaviest(one)
    where = location(part.stack)
    at = (where.file, where.line or None, where.function) if where else (None, None, None)
    return (part.cause, milliseconds(part.ns), part.call.name if part.call else None, resource_of(part.call), *at)


def _time(recording: Recording, at_ns: int) -> str:
    moment = time_of_day(recording, at_ns)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}" if moment else ""
