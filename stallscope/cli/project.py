"""The project that a gate is for: its directory, its name, and what its pyproject.toml says of the gate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from stallscope.errors import UnreadableInput

BASELINE = "stallscope-baseline.jsonl"
"""What a baseline is called unless pyproject.toml says otherwise."""


class Project(NamedTuple):
    """Where it is, and its settings (``[tool.stallscope.gate]``), as written."""

    root: Path
    name: str
    settings: Mapping[str, Any]

    @property
    def baseline(self) -> Path:
        """Where its baseline is, or will be."""
        return self.root / str(self.settings.get("baseline", BASELINE))


def find_project(start: Path) -> Project:
    """The project that a directory belongs to: the nearest with a pyproject.toml, else that of the repository.

    Raises UnreadableInput for a pyproject.toml that cannot be read.
    """
    for directory in (start, *start.parents):
        file = directory / "pyproject.toml"
        if file.is_file():
            return _described(directory, _parsed(file))
        if (directory / ".git").exists():
            return Project(directory, directory.name, {})
    return Project(start, start.name, {})


def _parsed(file: Path) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableInput(f"cannot read {file}: {error}; mend it, or run where there is none") from error


def _described(root: Path, parsed: Mapping[str, Any]) -> Project:
    tool = parsed.get("tool", {})
    name = parsed.get("project", {}).get("name") or tool.get("poetry", {}).get("name") or root.name
    settings = tool.get("stallscope", {}).get("gate", {})
    if not isinstance(settings, dict):
        raise UnreadableInput(
            f"tool.stallscope.gate in {root / 'pyproject.toml'} is no table: write [tool.stallscope.gate]"
        )
    return Project(root, str(name), settings)


def relative_to(root: Path) -> Callable[[str], str]:
    """What names files as the project knows them, wherever the recording was made.

    A file of another machine (``/app/shop/db.py`` of a container) is the file of the project with the longest same
    end.  Files of packages and of the standard library are named without their Python's directory.
    """

    @lru_cache(maxsize=4096)
    def relative(file: str) -> str:
        for mark in ("/site-packages/", "/dist-packages/"):
            if mark in file:
                return f"site-packages/{file.rpartition(mark)[2]}"
        path = PurePath(file)
        if not path.is_absolute():
            return file
        if path.is_relative_to(root):
            return str(path.relative_to(root))
        ends = (PurePath(*path.parts[at:]) for at in range(1, len(path.parts)))
        return next((str(end) for end in ends if (root / end).is_file()), _of_python(path))

    return relative


def _of_python(path: PurePath) -> str:
    """``python/json/decoder.py`` for a file of the standard library; any other as it is."""
    at = next((i for i, part in enumerate(path.parts) if part.startswith("python3.")), None)
    return str(PurePath("python", *path.parts[at + 1 :])) if at else str(path)
