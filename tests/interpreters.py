"""The CPythons of this machine that the agent has to run on.

Tests parametrise over ``every_version()`` and call ``require``: an absent version is skipped, with the reason.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import debian_pythons

Version = tuple[int, int]
VERSIONS: tuple[Version, ...] = tuple((3, minor) for minor in range(8, 16))


@dataclass(frozen=True)
class Interpreter:
    """One CPython that can be started: its version (major, minor) and its executable."""

    version: Version
    executable: str


def every_version() -> list[Any]:
    """Every supported version, here or not, as pytest parameters."""
    return [pytest.param(version, id=f"py{name_of(version)}") for version in VERSIONS]


def require(version: Version) -> Interpreter:
    """The interpreter of that version; skips the test, with the reason, where there is none."""
    found = find(version)
    if found is None:
        pytest.skip(
            f"no CPython {name_of(version)} in ~/.pyenv/versions or on PATH, nor made by python -m tests.debian_pythons"
        )
    return found


@functools.cache
def find(version: Version) -> Interpreter | None:
    """The interpreter of that version, or None where this machine has none."""
    for executable in _candidates(version):
        if _is_version(executable, version):
            return Interpreter(version, executable)
    return None


def name_of(version: Version) -> str:
    """The version as people write it, ``3.8``."""
    return f"{version[0]}.{version[1]}"


def _candidates(version: Version) -> list[str]:
    """Where this version may be: pyenv's directories, then PATH, then what ``tests.debian_pythons`` made."""
    name = name_of(version)
    builds = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{name}.*/bin/python"), reverse=True)
    on_path = shutil.which(f"python{name}")
    made = debian_pythons.executable(name)
    return [str(build) for build in builds] + ([on_path] if on_path else []) + ([str(made)] if made.exists() else [])


def _is_version(executable: str, version: Version) -> bool:
    """Whether it starts and is a CPython of that version: a shim of pyenv's may do neither."""
    program = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        answer = subprocess.run([executable, "-c", program], capture_output=True, text=True, timeout=60, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.split() == ["cpython", str(version[0]), str(version[1])]
