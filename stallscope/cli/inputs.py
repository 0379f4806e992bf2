"""What the reporting commands are given: a recording of ours, or a trace that somebody else recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stallscope.recording.nouns import Recording

_SQLITE = b"SQLite format 3\0"


def read_input(path: Path, *, format: str | None = None, threshold_ns: int | None = None) -> Recording:
    """The recording in a file, or made of a foreign trace (``-`` is stdin), which needs a threshold: 10 ms by default.

    Raises UnreadableInput for what is neither.
    """
    return read_inputs([path], format=format, threshold_ns=threshold_ns)


def read_inputs(
    paths: Sequence[Path], *, format: str | None = None, threshold_ns: int | None = None, intervals: bool = False
) -> Recording:
    """The same of several files, as one recording; `intervals` as for the reader of recordings."""
    from stallscope.recording.merge import merged
    from stallscope.recording.reader import read

    foreign = [path for path in paths if format is not None or _is_foreign(path)]
    recordings = [read(path, intervals=intervals) for path in dict.fromkeys(paths) if path not in foreign]
    if foreign:
        from stallscope.ingest.recognise import ingest_all

        with _progress(foreign) as progress:
            recordings.append(
                ingest_all(foreign, format=format, threshold_ns=threshold_ns or 10_000_000, progress=progress)
            )
    return merged(recordings)


def _is_foreign(path: Path) -> bool:
    """A file with something in it that is not SQLite; for the rest the recording's reader has the words."""
    try:
        if str(path) == "-" or path.is_fifo():  # <(zcat trace.gz): what is in it can be read only once
            return True
        with path.open("rb") as file:
            head = file.read(len(_SQLITE)) if path.is_file() else b""
    except OSError:
        return False
    return bool(head) and head != _SQLITE


@contextmanager
def _progress(paths: Sequence[Path]) -> Iterator[Callable[[int, int | None], None] | None]:
    """One bar for all files, with rate and remaining time, on stderr, where somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    sizes = [path.stat().st_size if path.is_file() else None for path in paths]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(paths[0].name if len(paths) == 1 else f"{len(paths)} files", total=total)
        before = last = 0

        def tell(done: int, size: int | None) -> None:
            nonlocal before, last
            before += last if done < last else 0  # the next file has begun
            last = done
            bar.update(task, completed=before + done)

        yield tell
