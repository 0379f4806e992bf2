"""The JSON report: a contract (schema 1).  More keys may come; those that are here stay."""

from __future__ import annotations

import json

from stallscope.analysis.findings import (
    Advice,
    CauseTime,
    Culprit,
    Findings,
    Gain,
    HandlerDelay,
    LoopFindings,
    Pattern,
    Pool,
    StallFindings,
    WhatIf,
)
from stallscope.analysis.modes import Mode
from stallscope.recording.nouns import Executor, HandlerTime, Process, Stack
from stallscope.report.json_values import Json, by_cause, milliseconds, rounded_share, seconds
from stallscope.report.totals_json import prediction

SCHEMA = 1
LONGEST = 100
"""As many stalls are listed unless all are asked for."""


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
        else {"culprits": others.culprits, "share": rounded_share(others.share), "stall_ms": milliseconds(others.ns)},
        "stalls": [_stall(stall) for stall in stalls],
        "causes": [_cause(one) for one in findings.causes],
        "gains": [_gain(one) for one in findings.gains],
        "handlers": [_delay(one) for one in findings.delays],
        "patterns": [_pattern(one) for one in findings.patterns],
        "executors": [executor(one) for one in findings.recording.executors],
        "prediction": prediction(findings.prediction) if findings.prediction else None,
    }


def _cause(one: CauseTime) -> Json:
    return {
        "cause": one.cause,
        "share": rounded_share(one.share),
        "stall_ms": milliseconds(one.ns),
        "stalls": one.stalls,
    }


def _delay(one: HandlerDelay) -> Json:
    return {
        "name": one.handler.name,
        "file": one.handler.file,
        "line": one.handler.line,
        "calls": one.calls,
        "own_ms": milliseconds(one.own_ns),
        "inflicted_ms": None if one.inflicted_ns is None else milliseconds(one.inflicted_ns),
        "suffered_ms": None if one.suffered_ns is None else milliseconds(one.suffered_ns),
        "caught_calls": one.caught_calls,
    }


def _pattern(one: Pattern) -> Json:
    return {
        "kind": one.kind,
        "sentence": one.sentence,
        "stalls": one.stalls,
        "of": one.of,
        "p": one.p,
        "period_ms": None if one.period_ns is None else milliseconds(one.period_ns),
        "culprit": one.culprit,
        "pids": list(one.pids),
    }


def _recording(findings: Findings) -> Json:
    recording = findings.recording
    return {
        "path": recording.path,
        "source": recording.source,
        "wall_s": seconds(findings.wall_ns),
        "threshold_ms": milliseconds(findings.threshold_ns),
        "fidelity": {
            "level": recording.fidelity.level,
            "missing": [{"what": one.what, "why": one.why} for one in findings.missing],
        },
        "recorded_threshold_ms": milliseconds(recording.threshold_ns),
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
    valleys = [milliseconds(valley.threshold_ns) for valley in one.modality.valleys]
    return {
        "id": loop.id,
        "pid": loop.pid,
        "tid": loop.tid,
        "kind": loop.kind,
        "name": loop.name,
        "iterations": one.iterations,
        "wall_s": seconds(one.wall_ns),
        "busy_s": seconds(one.busy_ns),
        "utilization": rounded_share(one.utilization),
        "latency_ms": {name: None if ns is None else milliseconds(ns) for name, ns in zip(names, lengths, strict=True)},
        "log2": [{"lo_us": row.lo_us, "hi_us": row.hi_us, "count": row.count} for row in one.log2],
        "shape": one.modality.shape,
        "modes": [_mode(number, mode, one) for number, mode in enumerate(one.modality.modes, 1)],
        "valley_ms": _stall_valley_ms(one),
        "valleys_ms": valleys,
        "note": one.modality.note,
        "stalls": {
            "count": one.stall_count,
            "total_ms": milliseconds(one.stall_ns),
            "wall_share": rounded_share(one.stall_wall_share),
        },
        "arrival": _arrival(one),
        "zero_wait_share": rounded_share(one.zero_wait_share),
        "saturated": one.saturated,
    }


def _stall_valley_ms(one: LoopFindings) -> float | None:
    """The valley below the fastest stall mode; without a stall mode the first valley."""
    valleys = one.modality.valleys
    below = [v for v, slower in zip(valleys, one.modality.modes[1:], strict=True) if slower.stall_mode]
    return next((milliseconds(valley.threshold_ns) for valley in (*below, *valleys)), None)


def _mode(number: int, mode: Mode, one: LoopFindings) -> Json:
    cause = next((cause for cause in one.mode_causes if cause.mode == number), None)
    return {
        "lo_ms": milliseconds(mode.lo_ns),
        "hi_ms": milliseconds(mode.hi_ns),
        "peak_ms": milliseconds(mode.peak_ns),
        "iterations": mode.iterations,
        "share": rounded_share(mode.share),
        "stall_mode": mode.stall_mode,
        "busy_share": rounded_share(cause.busy_share) if cause else None,
        "culprit": cause.culprits[0][0] if cause and cause.culprits else None,
        "culprit_share": rounded_share(cause.culprits[0][1]) if cause and cause.culprits else None,
        "culprits": [{"culprit": rank, "share": rounded_share(part)} for rank, part in cause.culprits] if cause else [],
        "causes": [{"cause": name, "share": rounded_share(part)} for name, part in cause.causes] if cause else [],
    }


def _arrival(one: LoopFindings) -> Json:
    felt = one.arrival
    return {
        "p_wait_over_threshold": rounded_share(felt.p_wait_over_threshold) if felt else None,
        "mean_wait_ms": round(felt.mean_wait_ms, 6) if felt else None,
        "p99_wait_ms": round(felt.p99_wait_ms, 6) if felt else None,
    }


def _culprit(one: Culprit) -> Json:
    found: Json = {
        "rank": one.rank,
        "kind": one.kind,
        "share": rounded_share(one.share),
        "stall_ms": milliseconds(one.ns),
        "longest_ms": milliseconds(one.longest_ns),
        "stalls": one.stalls,
        "cause": one.cause,
        "syscall": one.syscall,
        "resource": one.resource,
        "resources": [
            {"name": r.name, "kind": r.kind, "stall_ms": milliseconds(r.ns)} for r in one.resources if r.name
        ],
        "detail": one.detail or None,
        "handler": one.handler.name if one.handler else None,
        "location": None,
        "stack": _stack(one.stack),
        "low_confidence": one.low_confidence,
        "advice": _advice(one.advice) if one.advice else None,
        "calls": one.calls,
        "calls_per_stall": round(one.calls_per_stall, 3),
        "ledger": by_cause(one.ledger),
        "stalls_ledger": by_cause(one.stalls_ledger),
        "pool": _pool(one.pool) if one.pool else None,
        "what_if": None,
    }
    if one.location:
        where = one.location
        found["location"] = {"file": where.file, "line": where.line, "function": where.function}
    if one.what_if:
        found["what_if"] = _left(one.what_if)
    if one.kind == "pile-up":
        found["handlers"] = [_handler_time(time) for time in one.handlers]
    if one.kind == "saturation":
        found["loop"] = one.loop_id
    return found


def _left(one: WhatIf) -> Json:
    return {"p99_ms": milliseconds(one.p99_ns), "stall_wall_share": rounded_share(one.stall_wall_share)}


def _gain(one: Gain) -> Json:
    return {"culprits": list(one.culprits), **_left(one.left)}


def _advice(one: Advice) -> Json:
    found: Json = {"summary": one.summary, "code": one.code, "remedy": one.remedy, "source": one.source or None}
    return {**found, "also": [_advice(other) for other in one.also]}


def _pool(one: Pool) -> Json:
    return {
        "wait_ms": milliseconds(one.wait_ns),
        "compute_ms": milliseconds(one.compute_ns),
        "calls_per_s": round(one.rate_per_s, 6),
        "most_threads": None if one.most_threads is None else round(one.most_threads, 3),
        "threads": one.threads,
        "utilization": rounded_share(one.utilization),
        "p_queued": rounded_share(one.p_queued),
        "mean_queue_ms": milliseconds(one.mean_queue_ns),
        "executor": None if one.executor is None else executor(one.executor),
        "default_threads": one.default_threads,
        "default_utilization": rounded_share(one.default_utilization),
        "default_p_queued": rounded_share(one.default_p_queued),
        "new_queue": one.new_queue,
    }


def executor(one: Executor) -> Json:
    """A thread pool as it was seen."""
    return {
        "name": one.name,
        "default": one.is_default,
        "most_threads": one.most_threads,
        "threads": one.threads,
        "mean_busy": round(one.busy / one.looks, 3) if one.looks else None,
        "queued_share": rounded_share(one.queued_looks / one.looks) if one.looks else None,
        "deepest_queue": one.deepest,
    }


def _handler_time(time: HandlerTime) -> Json:
    return {"name": time.handler.name, "calls": time.calls, "total_ms": milliseconds(time.total_ns)}


def _stack(stack: Stack) -> list[Json]:
    return [{"file": frame.file, "line": frame.line, "function": frame.function} for frame in stack]


def _stall(one: StallFindings) -> Json:
    stall = one.stall
    return {
        "loop": stall.loop_id,
        "start_ns": stall.start_ns,
        "duration_ms": milliseconds(stall.duration_ns),
        "finished": stall.finished,
        "task": stall.task,
        "handler": one.handler.name if one.handler else None,
        "ledger": by_cause(one.ledger),
        "culprit": one.culprit,
    }
