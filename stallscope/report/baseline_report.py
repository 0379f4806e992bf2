"""A baseline for people, and as JSON: its runs, its call sites, what is accepted."""

from __future__ import annotations

import json

from rich.text import Text

from stallscope.gate.baseline import Baseline, lines_of
from stallscope.report.json_report import SCHEMA
from stallscope.report.page import Lines, fitting, print_lines
from stallscope.report.words import count, duration, fitted


def as_json(baseline: Baseline) -> str:
    """The baseline as JSON text, each line of the file an object."""
    head, *lines = lines_of(baseline)
    groups = {name: [line for line in lines if name in line] for name in ("accepted", "run", "site")}
    found = {"schema": SCHEMA, "project": head["project"], "runs": groups["run"], "sites": groups["site"]}
    return json.dumps({**found, "accepted": groups["accepted"]}, indent=2, ensure_ascii=False)


def render(baseline: Baseline, width: int, colour: bool) -> str:
    """The baseline as text."""
    columns = fitting(width)
    return print_lines(_lines(baseline, columns), columns, colour)


def _lines(baseline: Baseline, width: int) -> Lines:
    yield Text(f"baseline of {baseline.project}: {count(len(baseline.runs), 'run')}", style="bold")
    for one in baseline.runs:
        facts = one.facts
        yield (
            f"  {one.at}  {facts.level}, {facts.python or 'unknown Python'}, {one.machine}:"
            f" {count(facts.iterations, 'iteration')} in {duration(facts.wall_ns)},"
            f" {count(facts.stalls, 'stall')} of {duration(facts.threshold_ns)} or more"
        )
    yield ""
    yield Text(f"{count(len(baseline.sites), 'call site')} that may block", style="bold")
    for place, unseen in sorted(baseline.sites.items()):
        kind = f" ({place.kind})" if place.kind else ""
        aged = f", not seen in the last {count(unseen, 'run')}" if unseen else ""
        yield Text(fitted(f"  {place.file} {place.function}: {place.call}{kind}{aged}", width), no_wrap=True)
    if baseline.allowances:
        yield ""
        yield Text("accepted", style="bold")
    for allowance in baseline.allowances:
        until = f" until {allowance.until}" if allowance.until else ""
        yield f"  {allowance.pattern}{until}: {allowance.reason}"
