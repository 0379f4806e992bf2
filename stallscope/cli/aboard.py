"""What comes aboard an observed program besides the agent: the option that `run` and `attach` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stallscope.recording.writer import Writer

UsePulse = Annotated[bool, typer.Option("--pulse/--no-pulse", help="Time every call exactly, by a small C library.")]


def library_for(writer: Writer, wanted: bool) -> Path | None:
    """The pulse's library to take along; without it the recording says what it lacks, and why."""
    from stallscope import pulse
    from stallscope.collect.collector import library_unless

    return library_unless(pulse.unusable_reason() if wanted else "--no-pulse was given", writer)
