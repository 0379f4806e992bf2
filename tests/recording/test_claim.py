"""Where a recording may be made, and what is said where it may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stallscope.errors import UnreadableInput
from stallscope.recording.file import RecordingStopped
from stallscope.recording.reader import read
from tests.recording.examples import STARTED_NS, new_writer, with_one_loop
from tests.recording.privilege import without_privilege


def test_a_recording_is_never_overwritten_unasked(recording: Path) -> None:
    before = recording.read_bytes()
    with pytest.raises(UnreadableInput, match=r"x\.stall exists already; give another name, or --force"):
        new_writer(recording)
    assert recording.read_bytes() == before


def test_force_replaces_the_recording_and_its_log(recording: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        recording.with_name(recording.name + suffix).write_text("left over")
    recording.chmod(0o644)
    new_writer(recording, force=True).close(STARTED_NS + 1)
    assert read(recording).stalls == ()
    assert os.listdir(recording.parent) == ["x.stall"]
    assert recording.stat().st_mode & 0o777 == 0o600


def test_force_takes_a_recording_in_progress_from_its_recorder(recording: Path) -> None:
    first = new_writer(recording, force=True)
    first.commit()
    second = with_one_loop(recording, force=True)
    with pytest.raises(RecordingStopped, match="deleted, moved or replaced"):
        first.commit()
    first.close(STARTED_NS)
    assert recording.with_name("x.stall-wal").exists()
    second.close(STARTED_NS + 1)
    assert len(read(recording).loops) == 1
    assert os.listdir(recording.parent) == ["x.stall"]


def test_a_log_whose_recording_is_away_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.stall-wal").write_text("precious")
    with pytest.raises(UnreadableInput, match=r"x\.stall-wal exists already"):
        new_writer(tmp_path / "x.stall")
    assert (tmp_path / "x.stall-wal").read_text() == "precious"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "x.stall"
    precious.write_text("precious")
    link.symlink_to(precious)
    with pytest.raises(UnreadableInput, match="exists already"):
        new_writer(link)
    new_writer(link, force=True).close(STARTED_NS)
    assert precious.read_text() == "precious"
    assert not link.is_symlink()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: path.mkdir(), "is a directory", id="directory"),
        pytest.param(lambda path: os.mkfifo(path), "is a device or a pipe", id="pipe"),
    ],
)
def test_what_is_no_file_is_not_replaced_even_by_force(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "x.stall"
    make(path)
    with pytest.raises(UnreadableInput, match=message):
        new_writer(path, force=True)
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/x.stall", "the directory .*/absent does not exist; make it, or give another"),
        ("file/x.stall", "not a directory"),
        ("x" * 300, "file name too long"),
    ],
)
def test_places_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnreadableInput, match=message):
        new_writer(tmp_path / name)


def test_a_directory_that_may_not_be_written_to(locked_directory: Path) -> None:
    with without_privilege(), pytest.raises(UnreadableInput, match="permission denied; give a place"):
        new_writer(locked_directory / "x.stall")
