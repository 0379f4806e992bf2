"""Stalls as a Chrome trace (JSON), which ui.perfetto.dev, chrome://tracing and speedscope open.

A track a loop; on it each stall, and within it the calls that were timed and the runs of the garbage collector, or
where no call was timed, what the samples saw.  Times are in µs from the start of the recording.
Form: "Trace Event Format" (the Chromium project).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from stallscope.analysis.findings import Findings, StallFindings
from stallscope.analysis.sites import bare, location
from stallscope.recording.nouns import Loop, Stack, Stall, TimedCall
from stallscope.report.json_values import Json, by_cause
from stallscope.report.stall_parts import call_text, frames, heaviest, in_time, resource_of
from stallscope.report.words import duration

STALL = "stallscope,stall"
"""Its category: what ``stallscope.ingest.chrome`` knows our own exports by."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """One span of a track, on the recording's clock."""

    start_ns: int
    end_ns: int
    name: str
    category: str
    arguments: Json


def render(findings: Findings) -> str:
    """The trace as JSON text, an event a line."""
    events = [*_names(findings), *_events(findings)]
    head = {"displayTimeUnit": "ms", "otherData": _origin(findings)}
    # ASCII alone: readers differ in what else they take.
    lines = ",\n".join(json.dumps(event, allow_nan=False) for event in events)
    return f'{json.dumps(head)[:-1]}, "traceEvents": [\n{lines}\n]}}\n'


def _origin(findings: Findings) -> dict[str, str]:
    """Perfetto shows texts."""
    recording = findings.recording
    origin = {"recording": recording.path, "threshold": duration(findings.threshold_ns)}
    if recording.started_wall_s is not None:
        origin["started_unix_s"] = f"{recording.started_wall_s:.6f}"
    return origin


def _names(findings: Findings) -> Iterator[Json]:
    """What tracks are called.  They go by our numbers: of several recordings two may have the same pid and tid, and a
    thread 0, where the source knows none, is the idle thread to Perfetto."""
    loops = sorted((one.loop for one in findings.loops), key=lambda loop: loop.id)
    programs = {process.id: process.program for process in findings.recording.processes}
    for loop in {loop.process_id: loop for loop in loops}.values():
        yield _metadata("process_name", loop, f"{programs.get(loop.process_id, '')} (pid {loop.pid})")
    for loop in loops:
        yield _metadata("thread_name", loop, f"loop {loop.id}: {loop.kind} {loop.name}")


def _metadata(what: str, loop: Loop, name: str) -> Json:
    return {"ph": "M", "pid": loop.process_id, "tid": loop.id, "name": what, "args": {"name": name.strip()}}


def _events(findings: Findings) -> Iterator[Json]:
    processes = {one.loop.id: one.loop.process_id for one in findings.loops}
    origin_ns = min([findings.recording.started_ns, *(one.stall.start_ns for one in findings.stalls)])
    for one in in_time(findings):
        track = {"ph": "X", "pid": processes[one.stall.loop_id], "tid": one.stall.loop_id}
        for part in _nested(_whole(one), _inner(one.stall)):
            times = {"ts": (part.start_ns - origin_ns) / 1000, "dur": (part.end_ns - part.start_ns) / 1000}
            yield {**track, **times, "name": part.name, "cat": part.category, "args": part.arguments}


def _whole(one: StallFindings) -> _Slice:
    stall, main = one.stall, heaviest(one)
    arguments: dict[str, Any] = {
        "cause": main.cause,
        "culprit": one.culprit,
        "call": call_text(main.call) if main.call else None,
        **_at(main.stack),
        "ledger_ms": by_cause(one.ledger),
        "task": stall.task,
        "short calls": [_sum(call) for call in stall.calls if call.calls > 1],
        "unfinished": not stall.finished,
    }
    known = {name: value for name, value in arguments.items() if value}
    end_ns = stall.start_ns + stall.duration_ns
    return _Slice(stall.start_ns, end_ns, one.handler.name if one.handler else "stall", STALL, known)


def _sum(call: TimedCall) -> str:
    """Many short calls have a sum and no place in time."""
    return f"{call.calls:,} x {call_text(call.call)}: {duration(call.duration_ns)}"


def _inner(stall: Stall) -> Iterator[_Slice]:
    timed = [call for call in stall.calls if call.calls == 1]
    for call in timed:
        about = {"resource": resource_of(call.call), "detail": call.call.detail}
        known = {name: value for name, value in about.items() if value}
        yield _slice(call.start_ns, call.duration_ns, call_text(call.call), "call", known | _at(call.stack))
    for pause in stall.pauses:
        name = f"gc, generation {pause.generation}"
        yield _slice(pause.start_ns, pause.duration_ns, name, "gc", _at(pause.stack))
    for span in () if timed else stall.spans:
        where = location(span.stack)
        if where:
            seen = {"samples": span.samples, **({"in": call_text(span.call)} if span.call else {})}
            name = bare(where.function)
            yield _slice(span.from_ns, span.to_ns - span.from_ns, name, "sampled", seen | _at(span.stack))


def _slice(start_ns: int, duration_ns: int, name: str, category: str, arguments: Json) -> _Slice:
    return _Slice(start_ns, start_ns + duration_ns, name, category, arguments)


def _at(stack: Stack) -> Json:
    where = location(stack)
    return {"at": f"{where.file}:{where.line}", "stack": "\n".join(frames(stack))} if where else {}


def _nested(outer: _Slice, inner: Iterable[_Slice]) -> Iterator[_Slice]:
    """All that lie in another, from the outermost on, cut where they reach beyond it: spans of a track must nest."""
    yield outer
    ends = [outer.end_ns]
    for one in sorted(inner, key=lambda one: (one.start_ns, -one.end_ns)):
        start_ns = max(one.start_ns, outer.start_ns)
        while ends and ends[-1] <= start_ns:
            ends.pop()
        if ends and (end_ns := min(one.end_ns, ends[-1])) > start_ns:
            ends.append(end_ns)
            yield _Slice(start_ns, end_ns, one.name, one.category, one.arguments)
