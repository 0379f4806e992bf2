"""Damaged traces never crash a reader, and never give a duration that was not there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.ingest.expected import traces
from tests.ingest.fuzz import fuzz


@pytest.mark.parametrize("trace", traces(), ids=lambda path: path.name)
def test_damaged_lines(trace: Path, tmp_path: Path) -> None:
    assert fuzz(trace, 150, random.Random(2014), tmp_path / "damaged") >= 150
