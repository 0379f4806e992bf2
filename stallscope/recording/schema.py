"""The format of the ``.stall`` file: its mark, its number, and the tables of ``schema.sql``."""

from __future__ import annotations

import sqlite3
from pathlib import Path

APPLICATION_ID = 0x5354414C
"""``STAL``: what tells our files from other SQLite databases (PRAGMA application_id)."""

VERSION = 5
"""The number of the format that is written (PRAGMA user_version); lower ones are read too."""

CALL_SITES_SINCE = 2
"""The first format that keeps call sites."""

CPU_SINCE = 3
"""The first format that keeps the CPU time of loops."""

EXECUTORS_SINCE = 4
"""The first format that keeps thread pools."""

RECORDER_SINCE = 5
"""The first format that keeps who recorded, and which calls the recorder counts."""

SIDECARS = ("-wal", "-shm", "-journal")
"""What SQLite appends to the file's name for the files it keeps beside an open database."""


def create(db: sqlite3.Connection) -> None:
    """Turn an empty database into an empty recording, in a transaction that the caller commits."""
    tables = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    db.executescript(f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};\n{tables}")
