"""``stallscope baseline``: the file that the gate compares with, to commit beside the code."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stallscope.cli.project import Project
    from stallscope.gate.baseline import Baseline

APP = typer.Typer(
    help="The runs that the gate compares with: update, show, accept.", no_args_is_help=True, rich_markup_mode=None
)

File = Annotated[
    Path | None,
    typer.Option("--baseline", metavar="FILE", help="The baseline (stallscope-baseline.jsonl beside pyproject.toml)."),
]


@APP.command("update")
def update(
    recordings: Annotated[list[Path], typer.Argument(metavar="RECORDING...", help="Runs to accept.")],
    baseline: File = None,
) -> None:
    """Accept runs: their call sites and rates are what the next ones are compared with.

    The last five runs are kept, and the call sites of all five. A run that is in it changes nothing.
    """
    from stallscope.cli.gate_sides import machine, read_sides
    from stallscope.cli.output import say
    from stallscope.gate.baseline import updated
    from stallscope.report.words import count

    path, project = _place(baseline)
    before = _read(path, project)
    runs = read_sides(project, recordings, [path] if path.exists() else []).runs
    after = updated(before, runs, datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), machine())
    _write(path, after)
    new, gone = len(set(after.sites) - set(before.sites)), len(set(before.sites) - set(after.sites))
    runs_kept, sites = count(len(after.runs), "run"), count(len(after.sites), "call site")
    say(f"{path}: {runs_kept}, {sites} ({new} new, {gone} gone); commit it")


@APP.command("show")
def show(
    baseline: File = None, json: Annotated[bool, typer.Option("--json", help="Print JSON (schema 1).")] = False
) -> None:
    """Show the accepted runs, the call sites that block, and what is accepted for which reason."""
    from stallscope.cli.gate_sides import read_baseline
    from stallscope.cli.output import emit, screen
    from stallscope.report import baseline_report

    path, project = _place(baseline)
    found = read_baseline(path, project)
    emit(baseline_report.as_json(found) if json else baseline_report.render(found, *screen()))


@APP.command("accept")
def accept(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="FILE[:FUNCTION[:CALL[:KIND]]], with * and ?.")],
    reason: Annotated[str, typer.Option(help="Why it may block.")],
    until: Annotated[str | None, typer.Option(metavar="DATE", help="The last day on which it may.")] = None,
    baseline: File = None,
) -> None:
    """Accept call sites that block, with a reason and, if wished, an expiry."""
    from dataclasses import replace

    from stallscope.cli.gate_policy import as_date
    from stallscope.cli.output import say
    from stallscope.errors import UnreadableInput
    from stallscope.gate.policy import Allowance

    if not reason.strip() or not pattern.strip():
        raise UnreadableInput("an accepted call site needs a pattern and a reason: give both")
    path, project = _place(baseline)
    before = _read(path, project)
    others = (one for one in before.allowances if one.pattern != pattern)
    _write(path, replace(before, allowances=(*others, Allowance(pattern, reason, as_date(until)))))
    say(f"{path}: {pattern} is accepted{f' until {until}' if until else ''}; commit it")


def _place(given: Path | None) -> tuple[Path, Project]:
    from stallscope.cli.project import find_project

    project = find_project(Path.cwd())
    return given or project.baseline, project


def _read(path: Path, project: Project) -> Baseline:
    """The baseline; a new one where there is none yet."""
    from stallscope.cli.gate_sides import read_baseline
    from stallscope.gate.baseline import Baseline

    return read_baseline(path, project) if path.exists() else Baseline(project.name)


def _write(path: Path, baseline: Baseline) -> None:
    """All of it or nothing: another build may read it."""
    from stallscope.cli.write import write_text
    from stallscope.gate.baseline import text_of

    write_text(path, text_of(baseline))
