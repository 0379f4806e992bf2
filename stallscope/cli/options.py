"""Options that mean the same in several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        readable=False,  # not asked for here: our own words for it are better
        help="Recordings (.stall), foreign traces, or - for stdin; several are merged.",
    ),
]
Threshold = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Judge stalls by this threshold (10ms, 1.5s), not by the recording's own."),
]
Format = Annotated[
    str | None, typer.Option(metavar="NAME", help="Read a foreign trace as this format, not as what it looks like.")
]
