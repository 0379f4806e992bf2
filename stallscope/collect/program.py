"""What ``run`` is asked to start: a script, a module, or a command; and whether it is Python."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path

from stallscope.errors import NotObservable, UnreadableInput


@dataclass(frozen=True, slots=True)
class Program:
    """The command line to start, and what to call it."""

    argv: tuple[str, ...]
    name: str
    is_python: bool = True

    def require_observable(self, *, follow: bool) -> None:
        """Raise NotObservable for a program that is not Python and whose children are not to be followed."""
        if not self.is_python and not follow:
            raise NotObservable(
                f"{self.argv[0]} is not a Python program: without the pulse only Python can be observed; "
                "leave out --no-follow-children if it starts Python"
            )


def script_of(words: Sequence[str]) -> Program:
    """A script with its arguments, under our own interpreter. Raises UnreadableInput when there is none."""
    if not words:
        raise UnreadableInput("nothing to run: give a SCRIPT, -m MODULE, or -- COMMAND")
    script = Path(words[0])
    if not script.exists():
        hint = (
            f"; to run the command {words[0]}, put -- before it" if shutil.which(words[0]) else "; is the path right?"
        )
        raise UnreadableInput(f"there is no script {words[0]}{hint}")
    return Program((sys.executable, *words), script.stem or "program")


def module_of(words: Sequence[str]) -> Program:
    """``python -m MODULE ARGS`` under our own interpreter. Raises UnreadableInput for an unknown module."""
    if not words:
        raise UnreadableInput("nothing to run: a MODULE must follow -m")
    module = words[0]
    top = module.partition(".")[0]
    finders = (BuiltinImporter.find_spec(top), FrozenImporter.find_spec(top))
    if not any(finders) and PathFinder.find_spec(top, [os.getcwd(), *sys.path]) is None:
        raise UnreadableInput(
            f"there is no module {module} for {sys.executable}; install it there, or use -- PYTHON -m"
        )
    return Program((sys.executable, "-m", *words), top)


def command_of(words: Sequence[str]) -> Program:
    """Any command, found on PATH. Raises UnreadableInput when it does not exist."""
    if not words:
        raise UnreadableInput("nothing to run: a COMMAND must follow --")
    found = shutil.which(words[0])
    if found is None:
        raise UnreadableInput(f"there is no command {words[0]}; is the name right, and is it on PATH?")
    return Program(tuple(words), Path(words[0]).name, _is_python(Path(found)))


def _is_python(executable: Path) -> bool:
    """By its name, or by the interpreter that its first line names."""
    if executable.name.startswith(("python", "pypy")) or executable.resolve().name.startswith("python"):
        return True
    try:
        with executable.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return False
    return first.startswith(b"#!") and b"python" in first
