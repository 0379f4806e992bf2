"""``stallscope compare BEFORE AFTER``: what a change made of the stalls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A recording from before the change.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="A recording from after it.")],
    what_if: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help='Score a what-if made from BEFORE: "culprit=1,2" or "cause=gc".'),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON (schema 1).")] = False,
) -> None:
    """Say which stalls are gone, new, grown or shrunk, and whether a what-if foretold it."""
    from stallscope.analysis.compare import compare as compared
    from stallscope.cli.inputs import read_input
    from stallscope.cli.output import emit, screen
    from stallscope.cli.removal import parse_removal

    removal = None if what_if is None else parse_removal(what_if)
    comparison = compared(read_input(before), read_input(after), removal)
    if json:
        from stallscope.report import compare_json

        emit(compare_json.render(comparison))
    else:
        from stallscope.report import compare_terminal

        width, colour = screen()
        emit(compare_terminal.render(comparison, width=width, colour=colour))
