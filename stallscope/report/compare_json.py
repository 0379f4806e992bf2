"""A comparison as JSON: schema 1, times in ms, shares from 0 to 1, unknown values ``null``."""

from __future__ import annotations

import json

from stallscope.analysis.compare import CauseChange, Comparison, CulpritChange, ModeChange, Score, Side
from stallscope.analysis.findings import Findings
from stallscope.report.json_report import SCHEMA
from stallscope.report.json_values import Json, milliseconds, rounded_share
from stallscope.report.totals_json import mode_dict, prediction, totals


def render(comparison: Comparison) -> str:
    """The comparison as JSON text."""
    return json.dumps(as_dict(comparison), indent=2, ensure_ascii=False, allow_nan=False)


def as_dict(comparison: Comparison) -> Json:
    """The comparison as what `json` can write."""
    return {
        "schema": SCHEMA,
        "equal": comparison.equal,
        "threshold_ms": milliseconds(comparison.before.threshold_ns),
        "before": _recording(comparison.before),
        "after": _recording(comparison.after),
        "modes": [_mode_change(one) for one in comparison.modes],
        "culprits": [_culprit(one) for one in comparison.culprits],
        "causes": [_cause(one) for one in comparison.causes],
        "what_if": prediction(comparison.before.prediction) if comparison.before.prediction else None,
        "score": _score(comparison.score) if comparison.score else None,
        "notes": list(comparison.notes),
    }


def _recording(found: Findings) -> Json:
    return {
        "path": found.recording.path,
        "source": found.recording.source,
        "fidelity": found.recording.fidelity.level,
        "recorded_threshold_ms": milliseconds(found.recording.threshold_ns),
        **totals(found.totals),
    }


def _mode_change(one: ModeChange) -> Json:
    return {
        "change": one.change,
        "before": mode_dict(one.before) if one.before else None,
        "after": mode_dict(one.after) if one.after else None,
    }


def _culprit(one: CulpritChange) -> Json:
    side = one.after or one.before
    culprit = side.culprit if side else None
    return {
        "change": one.change,
        "certain": one.certain,
        "kind": culprit.kind if culprit else None,
        "cause": culprit.cause if culprit else None,
        "syscall": culprit.syscall if culprit else None,
        "handler": culprit.handler.name if culprit and culprit.handler else None,
        "before": _side(one.before) if one.before else None,
        "after": _side(one.after) if one.after else None,
    }


def _side(side: Side) -> Json:
    where = side.culprit.location
    return {
        "rank": side.culprit.rank,
        "stall_ms": milliseconds(side.ns),
        "stalls": side.stalls,
        "wall_share": rounded_share(side.wall_share),
        "resource": side.culprit.resource,
        "location": {"file": where.file, "line": where.line, "function": where.function} if where else None,
    }


def _cause(one: CauseChange) -> Json:
    return {
        "cause": one.cause,
        "before_ms": milliseconds(one.before_ns),
        "after_ms": milliseconds(one.after_ns),
        "before_wall_share": rounded_share(one.before_wall_share),
        "after_wall_share": rounded_share(one.after_wall_share),
    }


def _score(score: Score) -> Json:
    return {
        "predicted_stall_wall_share": rounded_share(score.predicted_share),
        "from": rounded_share(score.low_share),
        "to": rounded_share(score.high_share),
        "measured_stall_wall_share": rounded_share(score.measured_share),
        "error": round(score.error, 6),
        "right": score.right,
    }
