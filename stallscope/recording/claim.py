"""Takes the name of a new recording: private from its first byte, never over another file unasked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from stallscope.errors import UnreadableInput
from stallscope.recording.schema import SIDECARS


def claim(path: Path, force: bool) -> int:
    """Create ``path`` empty, mode 0600, and return its inode number.

    A file already there is replaced when ``force`` is set, with the log that belongs to it.
    Raises UnreadableInput when it may not or cannot be made.
    """
    try:
        _make_room(path, force)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnreadableInput(_why_not(path, error)) from error
    try:
        return os.fstat(handle).st_ino
    finally:
        os.close(handle)


def release(path: Path) -> None:
    """Remove a recording and what belongs to it."""
    # The recording goes first: a log without it is nothing, it without its log would be older.
    for name in (path, *sidecars(path)):
        name.unlink(missing_ok=True)


def sidecars(path: Path) -> list[Path]:
    """Where SQLite keeps the logs that belong to a file."""
    return [path.with_name(path.name + suffix) for suffix in SIDECARS]


def _make_room(path: Path, force: bool) -> None:
    # A log alone is refused too: its recording may only have been moved away for a moment.
    taken = [name for name in (path, *sidecars(path)) if os.path.lexists(name)]
    if path in taken:
        _require_replaceable(path)
    if taken and not force:
        raise UnreadableInput(f"{taken[0]} exists already; give another name, or --force to replace it")
    release(path)


def _require_replaceable(path: Path) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        raise UnreadableInput(f"{path} is a directory; give the name of a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UnreadableInput(f"{path} is a device or a pipe, not a place for a recording; give a file name")


def _why_not(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"cannot create {path}: the directory {path.parent} does not exist; make it, or give another"
    reason = (error.strerror or str(error)).lower()
    return f"cannot create {path}: {reason}; give a place that you may write to"
