"""``stallscope analyze FILE``: what stalled, and why."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from stallscope.cli.options import Files, Format, Threshold


def analyze(
    files: Files,
    json: Annotated[bool, typer.Option("--json", help="Print JSON (schema 1).")] = False,
    all_stalls: Annotated[
        bool, typer.Option("--all-stalls", help="List every stall, longest first (JSON: not the longest 100 alone).")
    ] = False,
    threshold: Threshold = None,
    format: Format = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Add the causes, every remedy, and who delayed whom.")
    ] = False,
    what_if: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help='Predict what is left without them: "culprit=1,2" or "cause=gc".'),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="X.stall", help="Keep what was read as a recording, for compare and the rest."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --save replace an existing recording.")] = False,
) -> None:
    """Say which line of which handler stopped the loop, in which call, on which file or peer."""
    from stallscope.analysis.examine import examine
    from stallscope.cli.inputs import read_inputs
    from stallscope.cli.output import emit, screen
    from stallscope.cli.removal import parse_removal
    from stallscope.cli.units import parse_duration_ns

    threshold_ns = None if threshold is None else parse_duration_ns(threshold)
    removal = None if what_if is None else parse_removal(what_if)
    recording = read_inputs(files, format=format, threshold_ns=threshold_ns)
    if save is not None:
        from stallscope.recording import store

        store.save(recording, save, force=force, command=shlex.join(sys.argv))
    findings = examine(recording, threshold_ns, removal)
    if json:
        from stallscope.report import json_report

        emit(json_report.render(findings, all_stalls=all_stalls))
        return
    width, colour = screen()
    if removal is not None:
        from stallscope.report import prediction

        emit(prediction.render(findings, width=width, colour=colour))
    else:
        from stallscope.report import terminal

        emit(terminal.render(findings, width=width, colour=colour, all_stalls=all_stalls, verbose=verbose))
