"""What a what-if takes away, as people type it."""

from __future__ import annotations

import pytest

from stallscope.analysis.findings import Removal
from stallscope.cli.removal import parse_removal
from stallscope.errors import UnreadableInput


def test_culprits_and_causes() -> None:
    assert parse_removal("culprit=1,2") == Removal((1, 2))
    assert parse_removal("cause=gc") == Removal(causes=("gc",))
    assert parse_removal(" culprit=2,2  cause=gc,import ") == Removal((2,), ("gc", "import"))


@pytest.mark.parametrize(
    "text", ["", " ", "culprit", "culprit=", "culprit=x", "culprit=-1", "cause=disk", "stall=1", "1"]
)
def test_what_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(UnreadableInput) as raised:
        parse_removal(text)
    assert "\n" not in str(raised.value)
