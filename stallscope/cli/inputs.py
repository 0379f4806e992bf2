"""What the reporting commands are given: a recording of ours, or a trace that somebody else recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stallscope.recording.nouns import Recording

_SQLITE = b"SQLite format 3\0"


def read_input(path: Path, *, format: str | None = None, threshold_ns: int | None = None) -> Recording:
    """The recording in a file, or made of a foreign trace (``-`` is stdin), which needs a threshold: 10 ms by default.

    Raises UnreadableInput for what is neither.
    """
    if format is None and not _is_foreign(path):
        from stallscope.recording.reader import read

        return read(path)
    from stallscope.ingest.recognise import ingest

    with _progress(path.name) as progress:
        return ingest(path, format=format, threshold_ns=threshold_ns or 10_000_000, progress=progress)


def _is_foreign(path: Path) -> bool:
    """A file with something in it that is not SQLite; for the rest the recording's reader has the words."""
    if str(path) == "-":
        return True
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE)) if path.is_file() else b""
    except OSError:
        return False
    return bool(head) and head != _SQLITE


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar with rate and remaining time on stderr, where somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
