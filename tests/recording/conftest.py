"""Places for recordings: ordinary ones, and ones that cannot be written to."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recording.examples import STALL, STARTED_NS, with_one_loop


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A closed recording with one stall."""
    path = tmp_path / "x.stall"
    writer = with_one_loop(path)
    writer.stall(STALL)
    writer.close(STARTED_NS)
    return path


@pytest.fixture
def locked_directory() -> Iterator[Path]:
    """A directory that everybody may enter and nobody may write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        yield Path(name)
        os.chmod(name, 0o755)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where one may be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)
