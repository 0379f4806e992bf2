"""The SQLite file of a recording in the making: whatever goes wrong with it ends the recording, and loses nothing.

SQLite's write-ahead log gives both promises: a recorder killed at any moment leaves the file
and its ``-wal``, and a reader may look at a recording in progress. ``synchronous`` is NORMAL,
so a commit costs no fsync; a power cut may take the last seconds, never the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from stallscope.errors import UnreadableInput
from stallscope.recording import schema
from stallscope.recording.claim import claim, release

Value = str | int | float | None

INTEGER_MAX = 2**63 - 1
BUSY_S = 1.0
"""Patience with a program that locks the file; the recorder must go on draining."""


class RecordingStopped(Exception):
    """Nothing more can be written (disk full, file gone …); what was committed stays readable."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"recording stopped: {reason}")
        self.reason = reason


class File:
    """Takes rows. The constructor raises UnreadableInput when the file cannot be made.

    Every method but ``leave_one_file`` and ``close`` raises RecordingStopped once writing has become impossible;
    ``stopped`` is the reason then.
    """

    def __init__(self, path: Path, force: bool, row: tuple[Value, ...]) -> None:
        self._path = path.absolute()  # whatever becomes of the current directory
        self.stopped = ""
        self._inode = claim(path, force)
        with _undone_on_failure(path):
            self._db = _open(self._path, row)

    def insert(self, table: str, row: Sequence[Value]) -> int:
        """Add a row; returns its id."""
        places = ", ".join("?" * len(row))
        return self.execute(f"INSERT INTO {table} VALUES ({places})", row).lastrowid or 0

    def execute(self, statement: str, row: Sequence[Value] = ()) -> sqlite3.Cursor:
        """One statement, with whatever values."""
        with self._stopping():
            try:
                return self._db.execute(statement, row)
            except (UnicodeEncodeError, OverflowError):
                return self._db.execute(statement, [_storable(value) for value in row])

    def execute_many(self, statement: str, rows: Sequence[tuple[int, ...]]) -> None:
        """The same statement with each of the rows."""
        with self._stopping():
            self._db.executemany(statement, rows)

    def commit(self) -> None:
        """Make all so far outlive the recorder."""
        with self._stopping():
            self._db.commit()

    def leave_one_file(self) -> None:
        """Empty the log into the file, as the last that is done with it."""
        # All is committed by now: should a reader or a full disk be in the way of this, the
        # recording stays what it is, in two files.
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.execute("PRAGMA journal_mode = DELETE")

    def close(self) -> None:
        """Let go of the file; raises nothing."""
        self.stopped = self.stopped or "it was closed"
        with suppress(sqlite3.Error):
            self._db.close()

    def check_in_place(self) -> None:
        """Do not go on recording into a file that was deleted or replaced: it would be lost."""
        try:
            inode = os.stat(self._path).st_ino
        except OSError:
            inode = 0
        if inode != self._inode and not self.stopped:
            self._stop(f"{self._path} was deleted, moved or replaced", None)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Around every use of the database: an error of it ends the recording."""
        if self.stopped:
            raise RecordingStopped(self.stopped)
        try:
            yield
        except sqlite3.DatabaseError as error:
            self._stop(_reason(error), error)

    def _stop(self, reason: str, error: Exception | None) -> NoReturn:
        self.stopped = reason
        with suppress(sqlite3.Error):
            self._db.rollback()
        # On a full disk the note still finds room as a rule: in the log, which the checkpoint
        # empties, or in the space that the commit which failed had taken.
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(sqlite3.Error):
            text = _storable(f"recording stopped: {reason}")
            self._db.execute("INSERT OR IGNORE INTO note (text) VALUES (?)", (text,))
            self._db.commit()
        raise RecordingStopped(reason) from error


def _storable(value: Value) -> Value:
    """What SQLite cannot take, made so: names that are not UTF-8 (they arrive as lone
    surrogates), and unsigned 64-bit cells that a dying process filled with nonsense."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return max(-INTEGER_MAX, min(value, INTEGER_MAX)) if isinstance(value, int) else value


def _reason(error: sqlite3.Error) -> str:
    text = str(error)
    return "the disk is full" if "disk is full" in text else f"the file could not be written ({text})"


def _open(path: Path, row: tuple[Value, ...]) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    try:
        # The tables come first, then WAL: so the file by itself, without its log, is a recording. All of it in one
        # commit, for each waits for the disk: two took 80 to 140 ms where one takes 40 to 60.
        db.execute("PRAGMA synchronous = NORMAL")
        schema.create(db)
        columns = "source, command, level, threshold_ns, started_ns, started_wall_s, last_ns"
        db.execute(f"INSERT INTO recording ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", [_storable(v) for v in row])
        db.commit()
        db.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _undone_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        release(path)
        raise UnreadableInput(f"cannot begin {path}: {_reason(error)}; give another place with -o") from error
