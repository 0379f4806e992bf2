"""Every file that is no recording gets one clear sentence; every rest of a recording is read."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from stallscope.errors import UnreadableInput
from stallscope.recording.reader import read
from stallscope.recording.store import store
from stallscope.recording.writer import SECOND_NS
from tests.recording.examples import EVERYTHING, STALL, STARTED_NS, new_writer, with_one_loop
from tests.recording.privilege import without_privilege


def sentence(path: Path) -> str:
    with pytest.raises(UnreadableInput) as caught:
        read(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def alter(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.executescript(statement)
    db.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A recording of many pages."""
    path = tmp_path / "large.stall"
    writer = new_writer(path)
    store(EVERYTHING, writer)
    for second in range(2000):
        writer.histogram(1, STARTED_NS + second * SECOND_NS, {900: 1, 901: 2, 902: 3})
    writer.close(STARTED_NS)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: its recorder was stopped before it began"),
        (b"x", "some other kind of file"),
        (b"0 -> 1 : 3799 |****|\n" * 500, "some other kind of file"),
        (bytes(range(256)) * 64, "some other kind of file"),
        (b"SQLite format 3\0", "is damaged"),
        (b"SQLite format 3\0" + b"\xff" * 8000, "is damaged"),
    ],
)
def test_foreign_bytes(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.stall"
    path.write_bytes(content)
    assert message in sentence(path)
    assert path.read_bytes() == content


def test_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist; give the path of a recording" in sentence(tmp_path / "x.stall")
    (tmp_path / "file").touch()
    assert "not a directory" in sentence(tmp_path / "file" / "x.stall")


def test_a_directory_and_a_pipe(tmp_path: Path) -> None:
    assert "is a directory" in sentence(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "device or a pipe" in sentence(tmp_path / "pipe")


def test_a_file_of_another_user(locked_directory: Path) -> None:
    path = locked_directory / "x.stall"
    locked_directory.chmod(0o755)
    with_one_loop(path).close(STARTED_NS)
    path.chmod(0)
    with without_privilege():
        assert "permission denied" in sentence(path)


def test_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    alter(path, "CREATE TABLE recording (source)")
    assert "SQLite database of another program" in sentence(path)


def test_a_database_without_a_table(recording: Path) -> None:
    empty = recording.with_name("empty.stall")
    alter(empty, "PRAGMA user_version = 3")
    assert "is empty" in sentence(empty)


def test_a_newer_format(recording: Path) -> None:
    alter(recording, "PRAGMA user_version = 7; DROP TABLE span")
    expected = "was written by a newer stallscope (format 7, this one reads 5): upgrade"
    assert expected in sentence(recording)


def test_a_file_of_the_first_format_lacks_what_came_later(large: Path) -> None:
    now = read(large)
    alter(
        large,
        "PRAGMA user_version = 1; DROP TABLE call_site; DROP TABLE executor; DROP TABLE counted_call;"
        "ALTER TABLE loop DROP COLUMN cpu_ns; ALTER TABLE recording DROP COLUMN recorder",
    )
    assert now.call_sites == EVERYTHING.call_sites
    assert now.executors == EVERYTHING.executors
    assert now.loops[0].cpu_ns == 5
    assert (now.recorder, now.counted_calls) == (EVERYTHING.recorder, EVERYTHING.counted_calls)
    loops = tuple(loop._replace(cpu_ns=None) for loop in now.loops)
    older = now._replace(call_sites=(), executors=(), loops=loops, recorder="", counted_calls=None)
    assert read(large) == older


@pytest.mark.parametrize("keep", [20, 99, 100, 1000, 4096, 5000, 40_000])
def test_a_file_cut_short(large: Path, keep: int) -> None:
    content = large.read_bytes()
    assert len(content) > keep
    large.write_bytes(content[:keep])
    assert "is damaged" in sentence(large)
    assert ".recover" in sentence(large)


def test_scribbled_pages(large: Path) -> None:
    content = bytearray(large.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    large.write_bytes(content)
    assert "is damaged" in sentence(large)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM frame",
        "DELETE FROM handler",
        "DELETE FROM recording",
        "UPDATE call SET name = CAST(x'ff' AS TEXT)",
        "DROP TABLE gc_pause",
        "DROP TABLE call_site",
    ],
)
def test_tables_that_do_not_fit_together(large: Path, damage: str) -> None:
    alter(large, damage)
    assert "is damaged" in sentence(large)


def test_a_file_locked_by_another_program(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stallscope.recording.reader.BUSY_S", 0.01)
    holder = sqlite3.connect(recording, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert "is locked by another program" in sentence(recording)
    holder.close()
    assert read(recording).stalls == (STALL,)


def in_progress(directory: Path) -> Path:
    """A recording cut short: its tables in the file, a stall in the log alone."""
    original, path = directory / "original.stall", directory / "x.stall"
    writer = with_one_loop(original)
    writer.stall(STALL)
    writer.commit()
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{original}{suffix}", f"{path}{suffix}")
    writer.close(STARTED_NS)
    return path


def drop_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def keep_log(path: Path) -> None:
    assert Path(f"{path}-wal").stat().st_size


@pytest.mark.parametrize(("log", "stalls"), [(keep_log, (STALL,)), (drop_log, ())])
def test_a_recording_cut_short_on_a_medium_that_cannot_be_written(
    locked_directory: Path, log: Callable[[Path], None], stalls: tuple[object, ...]
) -> None:
    locked_directory.chmod(0o755)
    path = in_progress(locked_directory)
    log(path)
    for name in locked_directory.iterdir():
        name.chmod(0o444)
    locked_directory.chmod(0o555)
    before = sorted(os.listdir(locked_directory))
    with without_privilege():
        recording = read(path)
    assert (recording.complete, recording.stalls) == (False, stalls)
    assert sorted(os.listdir(locked_directory)) == before


def test_a_complete_recording_on_a_medium_that_cannot_be_written(locked_directory: Path) -> None:
    locked_directory.chmod(0o755)
    path = locked_directory / "x.stall"
    with_one_loop(path).close(STARTED_NS)
    path.chmod(0o444)
    locked_directory.chmod(0o555)
    with without_privilege():
        assert read(path).complete


def test_a_torn_log_loses_only_its_end(tmp_path: Path) -> None:
    path = in_progress(tmp_path)
    log = Path(f"{path}-wal")
    log.write_bytes(log.read_bytes()[:-100])
    recording = read(path)
    assert (recording.complete, recording.stalls) == (False, ())


def test_the_garbage_collector_is_left_as_it_was(recording: Path) -> None:
    assert gc.isenabled()
    read(recording)
    assert gc.isenabled()
    gc.disable()
    try:
        read(recording)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_names_that_a_uri_would_misread(tmp_path: Path) -> None:
    path = tmp_path / "50% of? #1 \N{SNOWMAN}.stall"
    with_one_loop(path).close(STARTED_NS)
    assert read(path).complete
    assert read(Path(os.path.relpath(path))).complete
