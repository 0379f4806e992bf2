"""``stallscope analyze FILE``: what stalled, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def analyze(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording (.stall).")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON (schema 1).")] = False,
    all_stalls: Annotated[
        bool, typer.Option("--all-stalls", help="List every stall, longest first (JSON: not the longest 100 alone).")
    ] = False,
    threshold: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Judge stalls by this threshold (10ms, 1.5s), not by the recording's own."),
    ] = None,
) -> None:
    """Say which line of which handler stopped the loop, in which call, on which file or peer."""
    from stallscope.analysis.examine import examine
    from stallscope.cli.output import emit
    from stallscope.cli.units import parse_duration_ns
    from stallscope.recording.reader import read

    threshold_ns = None if threshold is None else parse_duration_ns(threshold)
    findings = examine(read(file), threshold_ns)
    if json:
        from stallscope.report import json_report

        emit(json_report.render(findings, all_stalls=all_stalls))
    else:
        from stallscope.report import terminal

        width, colour = _screen()
        emit(terminal.render(findings, width=width, colour=colour, all_stalls=all_stalls))


def _screen() -> tuple[int, bool]:
    """The width of the terminal, and whether it shows colour."""
    import os
    import shutil
    import sys

    return shutil.get_terminal_size((80, 24)).columns, sys.stdout.isatty() and not os.environ.get("NO_COLOR")
