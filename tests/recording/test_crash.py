"""Whatever dies at whatever moment, what was committed is read back."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stallscope.errors import UnreadableInput
from stallscope.recording.file import RecordingStopped
from stallscope.recording.reader import read
from stallscope.recording.writer import SECOND_NS, Writer
from tests.recording.examples import STARTED_NS, new_writer, with_one_loop
from tests.recording.recorder import record_second

ROOT = Path(__file__).parents[2]


def recorder(body: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.recording.recorder", body, str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def killed_after(lines: int, process: subprocess.Popen[str]) -> int:
    """Kill a child once it has printed so many lines; returns the last number it printed."""
    with process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        printed += process.stdout.readlines()
    return int([line for line in printed if line.endswith("\n")][-1])


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_recorder_leaves_all_that_was_committed(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "x.stall"
    committed = killed_after(random.Random(seed).randint(1, 400), recorder("forever", path))
    recording = read(path)
    seconds = len(recording.stalls)
    # The child may die between its commit and its print, never between its print and its commit.
    assert seconds in (committed, committed + 1)
    assert not recording.complete
    assert recording.ended_ns == STARTED_NS + seconds * SECOND_NS
    assert sum(recording.loops[0].counts.values()) == 2 * seconds
    assert recording == read(path)


@pytest.mark.parametrize("attempt", range(5))
def test_a_recorder_killed_while_it_closes_leaves_a_recording(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "x.stall"
    assert killed_after(1, recorder("closing", path)) == 50
    recording = read(path)
    assert len(recording.stalls) == 50
    assert recording.ended_ns == STARTED_NS + (60 if recording.complete else 50) * SECOND_NS


def test_a_recorder_killed_before_its_first_commit_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.stall"
    writer = new_writer(path)
    recording = read(path)
    assert (recording.complete, recording.ended_ns) == (False, STARTED_NS)
    writer.close(STARTED_NS)


def fill(writer: Writer) -> tuple[int, RecordingStopped]:
    """Record until the disk is full; returns the seconds committed, and what stopped it."""
    committed = 0
    try:
        while committed < 100_000:
            record_second(writer, committed)
            writer.commit()
            committed += 1
    except RecordingStopped as stopped:
        return committed, stopped
    raise AssertionError("the disk never filled")


@pytest.fixture
def limited_files() -> Iterator[None]:
    """No file of this process may grow beyond 1 MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_stopped(path: Path, reason: str) -> None:
    writer = with_one_loop(path)
    committed, stopped = fill(writer)
    assert reason in stopped.reason
    with pytest.raises(RecordingStopped, match=reason):
        writer.note("more")
    check_kept(path, committed, stopped)
    writer.close(STARTED_NS)
    check_kept(path, committed, stopped)


def check_kept(path: Path, committed: int, stopped: RecordingStopped) -> None:
    recording = read(path)
    assert len(recording.stalls) == committed > 10
    assert (recording.complete, recording.ended_ns) == (False, STARTED_NS + committed * SECOND_NS)
    assert recording.notes == (f"recording stopped: {stopped.reason}",)


def test_a_full_disk_stops_the_recording_and_loses_nothing(small_disk: Path) -> None:
    check_stopped(small_disk / "x.stall", "the disk is full")


def test_a_limit_to_file_size_stops_the_recording_and_loses_nothing(tmp_path: Path, limited_files: None) -> None:
    check_stopped(tmp_path / "x.stall", "could not be written")


def test_a_disk_full_from_the_start(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(2**21))
    with pytest.raises(UnreadableInput, match="the disk is full; give another place with -o"):
        new_writer(small_disk / "x.stall")
    assert os.listdir(small_disk) == ["ballast"]
