"""What ``doctor`` prints: a table of what was asked, what there is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = tuple[str, bool, str, str]
"""What was asked, whether it is well, what there is, and what to do where it is not."""


def render(title: str, rows: Iterable[Row], verdict: str, *, width: int, colour: bool) -> str:
    """The table, and the sentence below it."""
    table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left", title_style="")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, ok, detail, remedy in rows:
        text = Text(detail)
        if remedy:
            text.append(f"\n-> {remedy}", style="bold")
        table.add_row(Text("yes" if ok else "no", style="green" if ok else "red"), what, text)
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None,
                      highlight=False, legacy_windows=False)  # fmt: skip
    console.print(table)
    console.print(Text(verdict))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
