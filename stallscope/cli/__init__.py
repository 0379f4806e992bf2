"""The command line: one thin file a command, and the one place where errors become an exit code."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from stallscope import __version__
from stallscope.errors import StallscopeError

# Each is a function of that name (or a group of commands, APP) in the file of that name, which imports what it
# needs when it is called: `stallscope --help` must not wait for libraries that it does not use.
COMMANDS = ("run", "attach", "top", "analyze", "compare", "gate", "baseline", "doctor")


def main() -> None:
    """The entry point: an error meant for the user is one sentence on stderr and its documented exit code."""
    try:
        _app()()
    except StallscopeError as error:
        print(f"stallscope: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _app() -> typer.Typer:
    app = typer.Typer(
        help="Finds what stalls an event loop: which handler, which line, which call, which file or peer.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for name in COMMANDS:
        module = import_module(f"{__name__}.{name}")
        if hasattr(module, "APP"):
            app.add_typer(module.APP, name=name)
            continue
        app.command(name, **getattr(module, "REGISTRATION", {}))(getattr(module, name))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stallscope {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of stallscope itself."""
