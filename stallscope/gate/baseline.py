"""The baseline: what the last accepted runs were like, as text to commit beside the code.

JSON lines, sorted, one fact a line, so that a change of it can be reviewed and two branches merge: where both added
lines, keeping both is right.  A site's line stays as it is while the site is seen; one that is no longer seen counts
the runs since (``unseen``) and goes after five.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from typing import Any

from stallscope.errors import UnreadableInput
from stallscope.gate.policy import Allowance
from stallscope.gate.runs import Facts, Run
from stallscope.gate.sites import Place

SCHEMA = 1
RUNS_KEPT = 5
"""With one run, a legitimate site that is rarely executed is called new in one case of four, with three in one of
fifty (simulated)."""
MARK = "stallscope-baseline"
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run that was accepted: when (ISO 8601, UTC), and on what machine."""

    facts: Facts
    at: str
    machine: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is in the file."""

    project: str
    runs: tuple[Accepted, ...] = ()
    """The last five, the oldest first."""
    sites: Mapping[Place, int] = field(default_factory=dict)
    """Each with the number of runs since it was seen."""
    allowances: tuple[Allowance, ...] = ()


def updated(baseline: Baseline, runs: Sequence[Run], at: str, machine: str) -> Baseline:
    """The baseline with more accepted runs; those that it has already change nothing."""
    known = {one.facts.id for one in baseline.runs}
    accepted, sites = list(baseline.runs), dict(baseline.sites)
    for run in runs:
        if run.facts.id not in known:
            known.add(run.facts.id)
            accepted.append(Accepted(run.facts, at, machine))
            sites = {place: unseen + 1 for place, unseen in sites.items() if unseen + 1 < RUNS_KEPT}
            sites.update(dict.fromkeys(run.sites, 0))
    return replace(baseline, runs=tuple(accepted[-RUNS_KEPT:]), sites=sites)


def text_of(baseline: Baseline) -> str:
    """The file's text."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines_of(baseline))


def lines_of(baseline: Baseline) -> list[Line]:
    """The file's lines, as what `json` can write; the first is the header."""
    lines: list[Line] = [{MARK: SCHEMA, "project": baseline.project}]
    lines += [_allowance_line(one) for one in sorted(baseline.allowances, key=lambda one: one.pattern)]
    tables = {one.facts.counted for one in baseline.runs if one.facts.counted is not None}
    lines += sorted(map(_table_line, tables), key=lambda line: str(line["counted"]))
    lines += [_run_line(one) for one in baseline.runs]
    lines += [_site_line(place, unseen) for place, unseen in sorted(baseline.sites.items())]
    return lines


def parse(text: str, name: str, project: str | None = None) -> Baseline:
    """The baseline in a file's text; `name` is the file's, for errors, `project` whose baseline is expected.

    Raises UnreadableInput for what is no baseline, is of a newer schema, or belongs to another project.
    """
    lines = [_line(number, line, name) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UnreadableInput(f"{name} is empty, not a baseline; make one with: stallscope baseline update RECORDING")
    for _, head in [one for one in lines if MARK in one[1]] or [lines[0]]:
        _require_header(head, name, project)
    return _collected(lines, name)


def _line(number: int, text: str, name: str) -> tuple[int, Line]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        marker = text.startswith(("<<<<<<<", "=======", ">>>>>>>"))
        why = "is a mark of an unfinished merge: keep the lines of both sides" if marker else "is no JSON object"
        raise UnreadableInput(f"{name} is not a baseline: line {number} {why}")
    return number, value


def _require_header(head: Line, name: str, project: str | None) -> None:
    schema, owner = head.get(MARK), head.get("project")
    if not isinstance(schema, int) or not isinstance(owner, str):
        raise UnreadableInput(
            f"{name} is not a baseline of stallscope; make one with: stallscope baseline update RECORDING"
        )
    if schema != SCHEMA:
        raise UnreadableInput(
            f"{name} is a baseline of schema {schema}, and this stallscope reads schema {SCHEMA}: use the version"
            " that wrote it, or make the baseline anew with: stallscope baseline update"
        )
    if project is not None and owner != project:
        raise UnreadableInput(
            f"{name} is the baseline of the project {owner!r}, not of {project!r}: give this project's own"
            " (its name is in pyproject.toml, or that of its directory)"
        )


def _collected(lines: Iterable[tuple[int, Line]], name: str) -> Baseline:
    project = ""
    tables: dict[str, frozenset[str]] = {}
    runs: dict[str, Accepted] = {}
    sites: dict[Place, int] = {}
    allowances: dict[str, Allowance] = {}
    readers: dict[str, Callable[[Line], None]] = {
        "counted": lambda line: tables.update({line["counted"]: frozenset(map(_text, line["calls"]))}),
        "run": lambda line: runs.update({line["run"]: _run(line, tables)}),
        "site": lambda line: _keep_site(sites, line),
        "accepted": lambda line: allowances.update({line["accepted"]: _allowance(line)}),
    }
    for number, line in sorted(lines, key=lambda one: "counted" not in one[1]):  # the runs' lines name these
        try:
            if MARK in line:
                project = line["project"]
            for kind in readers.keys() & line.keys():
                readers[kind](line)
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableInput(
                f"{name} is damaged: line {number} lacks what it should have ({error}); take the file of the last"
                " commit, or make it anew with: stallscope baseline update"
            ) from error
    kept = sorted(runs.values(), key=lambda one: one.at)[-RUNS_KEPT:]
    return Baseline(project, tuple(kept), sites, tuple(allowances.values()))


def _keep_site(sites: dict[Place, int], line: Line) -> None:
    place = Place(*(_text(line[name]) for name in ("site", "function", "call", "kind")))
    sites[place] = min(_number(line.get("unseen", 0)), sites.get(place, RUNS_KEPT))


def _site_line(place: Place, unseen: int) -> Line:
    line: Line = {"site": place.file, "function": place.function, "call": place.call, "kind": place.kind}
    return {**line, "unseen": unseen} if unseen else line


def _allowance_line(one: Allowance) -> Line:
    line: Line = {"accepted": one.pattern, "reason": one.reason}
    return {**line, "until": one.until.isoformat()} if one.until else line


def _allowance(line: Line) -> Allowance:
    until = line.get("until")
    return Allowance(_text(line["accepted"]), _text(line["reason"]), date.fromisoformat(until) if until else None)


def _table_line(counted: frozenset[str]) -> Line:
    """Which calls a recorder counts: what it does not, its runs lack although it may be made."""
    return {"counted": _mark_of(counted), "calls": sorted(counted)}


def _mark_of(counted: frozenset[str]) -> str:
    return sha256("\n".join(sorted(counted)).encode()).hexdigest()[:8]


def _run_line(one: Accepted) -> Line:
    facts = one.facts
    return {
        "run": facts.id,
        "at": one.at,
        "machine": one.machine,
        "python": facts.python,
        "recorder": facts.recorder,
        "counts": None if facts.counted is None else _mark_of(facts.counted),
        "level": facts.level,
        "sees_calls": facts.sees_calls,
        "threshold_ms": round(facts.threshold_ns / 1e6, 6),
        "wall_s": round(facts.wall_ns / 1e9, 3),
        "iterations": facts.iterations,
        "work": facts.work,
        "stalls": facts.stalls,
        "stall_ms": round(facts.stall_ns / 1e6, 3),
        "cpu_s": None if facts.cpu_ns is None else round(facts.cpu_ns / 1e9, 3),
        "medians_us": {name: round(ns / 1e3, 3) for name, ns in facts.medians_ns.items()},
    }


def _run(line: Line, tables: Mapping[str, frozenset[str]]) -> Accepted:
    cpu_s = line.get("cpu_s")
    facts = Facts(
        id=_text(line["run"]),
        level=_text(line["level"]),
        sees_calls=bool(line["sees_calls"]),
        python=_text(line["python"]),
        threshold_ns=round(_number(line["threshold_ms"]) * 1e6),
        wall_ns=round(_number(line["wall_s"]) * 1e9),
        iterations=int(_number(line["iterations"])),
        work=int(_number(line["work"])),
        stalls=int(_number(line["stalls"])),
        stall_ns=round(_number(line["stall_ms"]) * 1e6),
        cpu_ns=None if cpu_s is None else round(_number(cpu_s) * 1e9),
        medians_ns={_text(name): round(_number(us) * 1e3) for name, us in line.get("medians_us", {}).items()},
        recorder=_text(line.get("recorder", "")),
        counted=tables.get(str(line.get("counts"))),
        knows_computing="recorder" in line,
    )
    return Accepted(facts, _text(line["at"]), _text(line["machine"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise TypeError(f"{value!r} is no number")
    return value
