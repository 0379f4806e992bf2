"""Our end of the box: a file in memory that the target has made (``agent/boot/boarding.py`` says what is in it).

It is found, and opened, through ``/proc/PID/fd``: in whatever namespace, root directory or read-only file system
the target lives, neither side needs a path of the other's.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from types import TracebackType
from typing import Any

PREFIX = "stallscope-"
_FILLED, _OFFERED, _TAKEN, _ENDED = b"\1", b"\2", b"\3", b"\4"
_PAYLOAD_AT = 4096


class Box:
    """The opened box. Use as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> Box:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._descriptor)

    def fill(self, payload: bytes) -> None:
        """Give the target what it waits for."""
        rest, at = memoryview(payload), _PAYLOAD_AT
        while rest:
            done = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[done:], at + done
        os.pwrite(self._descriptor, _FILLED, 0)

    def taken(self) -> None:
        """The shared memory has been opened here: the target may close its descriptor."""
        os.pwrite(self._descriptor, _TAKEN, 0)

    def said(self) -> tuple[bool, dict[str, Any]] | None:
        """(whether it is the end, the target's words); None while it is our turn, or the target still works.

        Raises ValueError for words that are none: another process wrote them.
        """
        turn = os.pread(self._descriptor, 1, 0)
        if turn not in (_OFFERED, _ENDED):
            return None
        length = int.from_bytes(os.pread(self._descriptor, 8, 8), "little")
        try:
            words = ast.literal_eval(os.pread(self._descriptor, min(length, _PAYLOAD_AT), 16).decode())
        except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
            raise ValueError("its answer cannot be read") from error
        if not isinstance(words, dict):
            raise ValueError("its answer cannot be read")
        return turn == _ENDED, words


def opened(pid: int, name: str) -> Box | None:
    """The box of that name in the process; None while it has none. Raises OSError when the process is gone."""
    for entry in os.scandir(f"/proc/{pid}/fd"):
        descriptor = open_memory(entry.path, name)
        if descriptor is not None:
            return Box(descriptor)
    return None


def open_memory(path: str, name: str = PREFIX.rstrip("-")) -> int | None:
    """A descriptor of ours for one of the target's, if that is a file in memory (or unlinked) with such a name.

    Anything else is not opened: to open a pipe or a device is to use it.
    """
    try:
        link = os.readlink(path)
        ours = link.startswith(f"/memfd:{name}") or (link.endswith(" (deleted)") and Path(link).name.startswith(name))
        return os.open(path, os.O_RDWR | os.O_CLOEXEC) if ours else None
    except OSError:
        return None
