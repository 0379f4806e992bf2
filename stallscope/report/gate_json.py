"""The gate's verdict as JSON: schema 1, times in ms, shares from 0 to 1."""

from __future__ import annotations

import json
from typing import Any

from stallscope.gate.policy import Allowance
from stallscope.gate.sites import Site
from stallscope.gate.verdict import Figure, NewCulprit, Result, Verdict
from stallscope.report.gate_words import headline
from stallscope.report.json_report import SCHEMA
from stallscope.report.json_values import Json, milliseconds

_NAMES = {"ns": "ms"}


def render(verdict: Verdict) -> str:
    """The verdict as JSON text."""
    return json.dumps(as_dict(verdict), indent=2, ensure_ascii=False, allow_nan=False)


def as_dict(verdict: Verdict) -> Json:
    """The verdict as what `json` can write."""
    return {
        "schema": SCHEMA,
        "verdict": verdict.outcome,
        "summary": headline(verdict),
        "runs": verdict.runs,
        "baseline_runs": verdict.baseline_runs,
        "rules": [_result(one) for one in verdict.results],
        "new_culprits": [_culprit(one) for one in verdict.new.culprits],
        "perhaps_new": [site_dict(site) for site in verdict.new.unsure],
        "not_told_by_baseline": [site_dict(site) for site in verdict.new.untold],
        "accepted": [{**site_dict(site), **_allowance(one)} for site, one in verdict.new.known],
        "notes": list(verdict.notes),
        "missing": [{"what": one.what, "why": one.why} for one in verdict.missing],
    }


def _result(one: Result) -> Json:
    return {
        "rule": one.rule,
        "outcome": one.outcome,
        "figures": [_figure(figure) for figure in one.figures],
        "why": one.why or None,
    }


def _figure(one: Figure) -> Json:
    return {
        "name": one.name,
        "value": _value(one, one.value),
        "unit": _NAMES.get(one.unit, one.unit),
        "limit": None if one.limit is None else _value(one, one.limit),
    }


def _value(figure: Figure, value: float) -> Any:
    return milliseconds(value) if figure.unit == "ns" else round(value, 9)


def _culprit(one: NewCulprit) -> Json:
    advice = {"summary": one.advice.summary, "code": one.advice.code} if one.advice else None
    return {
        **site_dict(one.site),
        "stack": [{"file": f.file, "line": f.line, "function": f.function} for f in one.site.stack],
        "advice": advice,
        "expired": _allowance(one.expired) if one.expired else None,
    }


def site_dict(site: Site) -> Json:
    """A call site."""
    resource = site.call.resource
    return {
        "site": site.place._asdict(),
        "line": site.line,
        "call": site.call.name,
        "resource": resource.name if resource else None,
        "handler": site.handler.name if site.handler else None,
        "hits": site.hits,
        "total_ms": milliseconds(site.total_ns),
        "longest_ms": milliseconds(site.longest_ns),
        "in_stalls": site.in_stalls,
    }


def _allowance(one: Allowance) -> Json:
    return {"pattern": one.pattern, "reason": one.reason, "until": one.until.isoformat() if one.until else None}
