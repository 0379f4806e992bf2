"""The command line: one thin file a command, and the one place where errors become an exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stallscope.errors import StallscopeError


def main() -> None:
    """The entry point: an error meant for the user is one sentence on stderr and its documented exit code."""
    from stallscope.cli.app import app  # typer, which who asks for a project or a unit does not need

    if sys.stdout is None:  # closed (>&-): nobody reads the report
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        app()()
    except StallscopeError as error:
        print(f"stallscope: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
