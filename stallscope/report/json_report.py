"""The JSON report: a contract (schema 1).  More keys may come; those that are here stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stallscope.analysis.findings import Culprit, Findings, LoopFindings, StallFindings
from stallscope.analysis.modes import Mode
from stallscope.recording.nouns import HandlerTime, Process, Stack

SCHEMA = 1
LONGEST = 100
"""As many stalls are listed unless all are asked for."""

Json = dict[str, Any]


def render(findings: Findings, *, all_stalls: bool = False) -> str:
    """The findings as JSON text; times in ms (to the ns) or s, shares from 0 to 1, unknown values ``null``."""
    return json.dumps(as_dict(findings, all_stalls=all_stalls), indent=2, ensure_ascii=False, allow_nan=False)


def as_dict(findings: Findings, *, all_stalls: bool = False) -> Json:
    """The findings as what `json` can write."""
    stalls = findings.stalls if all_stalls else findings.stalls[:LONGEST]
    others = findings.others
    return {
        "schema": SCHEMA,
        "recording": _recording(findings),
        "loops": [_loop(loop) for loop in findings.loops],
        "culprits": [_culprit(culprit) for culprit in findings.culprits],
        "others": None
        if others is None
        else {"culprits": others.culprits, "share": _share(others.share), "stall_ms": _ms(others.ns)},
        "stalls": [_stall(stall) for stall in stalls],
    }


def _recording(findings: Findings) -> Json:
    recording = findings.recording
    return {
        "path": recording.path,
        "source": recording.source,
        "wall_s": _s(findings.wall_ns),
        "threshold_ms": _ms(findings.threshold_ns),
        "fidelity": {
            "level": recording.fidelity.level,
            "missing": [{"what": one.what, "why": one.why} for one in findings.missing],
        },
        "recorded_threshold_ms": _ms(recording.threshold_ns),
        "complete": recording.complete,
        "suppressed": recording.suppressed,
        "notes": list(recording.notes),
        "processes": [_process(process) for process in recording.processes],
    }


def _process(process: Process) -> Json:
    return {
        "pid": process.pid,
        "parent_pid": process.parent_pid,
        "program": process.program,
        "runtime": process.runtime,
        "ending": process.ending,
    }


def _loop(one: LoopFindings) -> Json:
    loop, found = one.loop, one.percentiles
    names = ("p50", "p90", "p99", "p99_9", "max")
    lengths = (found.p50_ns, found.p90_ns, found.p99_ns, found.p99_9_ns, found.max_ns) if found else (None,) * 5
    valleys = [_ms(valley.threshold_ns) for valley in one.modality.valleys]
    return {
        "id": loop.id,
        "pid": loop.pid,
        "tid": loop.tid,
        "kind": loop.kind,
        "name": loop.name,
        "iterations": one.iterations,
        "wall_s": _s(one.wall_ns),
        "busy_s": _s(one.busy_ns),
        "utilization": _share(one.utilization),
        "latency_ms": {name: None if ns is None else _ms(ns) for name, ns in zip(names, lengths, strict=True)},
        "log2": [{"lo_us": row.lo_us, "hi_us": row.hi_us, "count": row.count} for row in one.log2],
        "shape": one.modality.shape,
        "modes": [_mode(number, mode, one) for number, mode in enumerate(one.modality.modes, 1)],
        "valley_ms": _stall_valley_ms(one),
        "valleys_ms": valleys,
        "note": one.modality.note,
        "stalls": {"count": one.stall_count, "total_ms": _ms(one.stall_ns), "wall_share": _share(one.stall_wall_share)},
        "arrival": _arrival(one),
        "zero_wait_share": _share(one.zero_wait_share),
        "saturated": one.saturated,
    }


def _stall_valley_ms(one: LoopFindings) -> float | None:
    """The valley below the fastest stall mode; without a stall mode the first valley."""
    valleys = one.modality.valleys
    below = [v for v, slower in zip(valleys, one.modality.modes[1:], strict=True) if slower.stall_mode]
    return next((_ms(valley.threshold_ns) for valley in (*below, *valleys)), None)


def _mode(number: int, mode: Mode, one: LoopFindings) -> Json:
    cause = next((cause for cause in one.mode_causes if cause.mode == number), None)
    return {
        "lo_ms": _ms(mode.lo_ns),
        "hi_ms": _ms(mode.hi_ns),
        "peak_ms": _ms(mode.peak_ns),
        "iterations": mode.iterations,
        "share": _share(mode.share),
        "stall_mode": mode.stall_mode,
        "busy_share": _share(cause.busy_share) if cause else None,
        "culprit": cause.culprit if cause else None,
        "culprit_share": _share(cause.culprit_share) if cause and cause.culprit else None,
    }


def _arrival(one: LoopFindings) -> Json:
    felt = one.arrival
    return {
        "p_wait_over_threshold": _share(felt.p_wait_over_threshold) if felt else None,
        "mean_wait_ms": round(felt.mean_wait_ms, 6) if felt else None,
        "p99_wait_ms": round(felt.p99_wait_ms, 6) if felt else None,
    }


def _culprit(one: Culprit) -> Json:
    found: Json = {
        "rank": one.rank,
        "kind": one.kind,
        "share": _share(one.share),
        "stall_ms": _ms(one.ns),
        "longest_ms": _ms(one.longest_ns),
        "stalls": one.stalls,
        "cause": one.cause,
        "syscall": one.syscall,
        "resource": one.resource,
        "resources": [{"name": r.name, "kind": r.kind, "stall_ms": _ms(r.ns)} for r in one.resources if r.name],
        "detail": one.detail or None,
        "handler": one.handler.name if one.handler else None,
        "location": None,
        "stack": _stack(one.stack),
        "low_confidence": one.low_confidence,
        "advice": {"summary": one.advice.summary, "code": one.advice.code} if one.advice else None,
        "what_if": None,
    }
    if one.location:
        where = one.location
        found["location"] = {"file": where.file, "line": where.line, "function": where.function}
    if one.what_if:
        gained = one.what_if
        found["what_if"] = {"p99_ms": _ms(gained.p99_ns), "stall_wall_share": _share(gained.stall_wall_share)}
    if one.kind == "pile-up":
        found["handlers"] = [_handler_time(time) for time in one.handlers]
    if one.kind == "saturation":
        found["loop"] = one.loop_id
    return found


def _handler_time(time: HandlerTime) -> Json:
    return {"name": time.handler.name, "calls": time.calls, "total_ms": _ms(time.total_ns)}


def _stack(stack: Stack) -> list[Json]:
    return [{"file": frame.file, "line": frame.line, "function": frame.function} for frame in stack]


def _stall(one: StallFindings) -> Json:
    stall = one.stall
    return {
        "loop": stall.loop_id,
        "start_ns": stall.start_ns,
        "duration_ms": _ms(stall.duration_ns),
        "finished": stall.finished,
        "task": stall.task,
        "handler": one.handler.name if one.handler else None,
        "ledger": _ledger(one.ledger),
        "culprit": one.culprit,
    }


def _ledger(ledger: Mapping[Any, int]) -> Json:
    return {cause: _ms(ns) for cause, ns in ledger.items()}


def _ms(ns: float) -> float:
    return round(ns / 1e6, 6)


def _s(ns: float) -> float:
    return round(ns / 1e9, 9)


def _share(share: float | None) -> float | None:
    return None if share is None else round(share, 6)
