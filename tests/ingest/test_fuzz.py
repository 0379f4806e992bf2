"""Damaged traces never crash a reader, and never give a duration that was not there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stallscope.ingest.recognise import FORMATS
from tests.ingest.expected import traces
from tests.ingest.fuzz import by_format, fuzz


@pytest.mark.parametrize("trace", traces(), ids=lambda path: path.name)
def test_damaged_lines(trace: Path, tmp_path: Path) -> None:
    assert fuzz([trace], 150, random.Random(2014), tmp_path / "damaged") >= 150


def test_every_format_that_is_read_has_a_trace() -> None:
    """So that `python -m tests.ingest.fuzz` damages each of them."""
    refused = {"perf-data", "syscount", "offcputime", "strace-c"}
    assert set(by_format()) == set(FORMATS) - refused
