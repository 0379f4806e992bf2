"""Damaged traces never crash a reader, and never give a duration that was not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope.ingest.recognise import FORMATS
from tests.ingest.fuzz import by_format, fuzz


@pytest.mark.parametrize("form", by_format())
def test_damaged_lines(form: str, tmp_path: Path) -> None:
    done = fuzz(by_format()[form], form, 600, tmp_path / "damaged")
    assert done.lines >= 600


def test_every_format_has_a_text() -> None:
    """So that `python -m tests.ingest.fuzz` damages each of them."""
    assert set(by_format()) == set(FORMATS) - {"perf-data"}
