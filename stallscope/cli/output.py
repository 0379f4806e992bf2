"""What commands print: reports on stdout, everything else on stderr."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from stallscope.errors import UnreadableInput

if TYPE_CHECKING:
    from stallscope.collect.collector import Collector


def say(sentence: str) -> None:
    """One sentence to the person at the terminal."""
    print(f"stallscope: {sentence}", file=sys.stderr, flush=True)


def say_recorded(collector: Collector, path: Path, threshold: str) -> None:
    """The closing line: what was seen, where it is, and what to do next."""
    say(
        f"{counted(collector, threshold)}, recorded in {path}{collector.foreign_loops}; next: stallscope analyze {path}"
    )


def counted(collector: Collector, threshold: str) -> str:
    """What was seen, in figures."""
    longest = f" (longest {collector.worst_ns / 1e6:.1f} ms)" if collector.worst_ns else ""
    return f"{collector.counted} of {threshold} or more{longest}"


def emit(text: str) -> None:
    """Prints a report; a reader that has gone away (``| head``) has seen what it wanted, which is no error.

    Raises UnreadableInput where stdout takes no more (a full disk).
    """
    stream = sys.stdout
    try:
        stream.write(text if text.endswith("\n") else text + "\n")
        stream.flush()
    except BrokenPipeError:
        _drop(stream)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        emit(text.encode(encoding, "replace").decode(encoding))
    except OSError as error:
        _drop(stream)
        raise UnreadableInput(
            f"cannot write to stdout: {(error.strerror or str(error)).lower()}; what is there is cut short"
        ) from error


def _drop(stream: TextIO) -> None:
    """The interpreter flushes stdout once more as it exits, and would complain there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def screen() -> tuple[int, bool]:
    """The width of the terminal, and whether it shows colour."""
    return shutil.get_terminal_size((80, 24)).columns, sys.stdout.isatty() and not os.environ.get("NO_COLOR")
