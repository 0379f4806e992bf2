"""The commands, put together."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from stallscope import __version__

# Each is a function of that name (or a group of commands, APP) in the file of that name, which imports what it
# needs when it is called: `stallscope --help` must not wait for libraries that it does not use.
COMMANDS = ("run", "attach", "top", "analyze", "compare", "gate", "baseline", "export", "doctor")


def app() -> typer.Typer:
    """The application."""
    made = typer.Typer(
        help="Finds what stalls an event loop: which handler, which line, which call, which file or peer.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    made.callback()(_options)
    for name in COMMANDS:
        module = import_module(f"stallscope.cli.{name}")
        if hasattr(module, "APP"):
            made.add_typer(module.APP, name=name)
            continue
        made.command(name, **getattr(module, "REGISTRATION", {}))(getattr(module, name))
    return made


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
