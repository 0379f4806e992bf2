"""Files that commands write: whole, or as they were."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from stallscope.errors import UnreadableInput


def write_text(path: Path, text: str) -> None:
    """Write a file: the whole of it or nothing.  Raises UnreadableInput where that cannot be done."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        _replace(path, text)
    except OSError as error:
        raise UnreadableInput(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}; give another place"
        ) from error


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(name, mode)
        os.replace(name, path.resolve())
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
