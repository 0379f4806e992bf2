"""Durations as people type them."""

from __future__ import annotations

import pytest

from stallscope.cli.units import parse_duration_ns
from stallscope.errors import UnreadableInput


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10ms", 10_000_000),
        ("1.5s", 1_500_000_000),
        ("500us", 500_000),
        ("500µs", 500_000),
        (" 2 min ", 120_000_000_000),
        (".5 ms", 500_000),
        ("100ns", 100),
    ],
)
def test_a_number_and_a_unit(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0", "no unit"),
        ("0ms", "zero"),
        ("0.1ns", "zero, or under a nanosecond"),
        ("-3ms", "more than zero"),
        ("10 parsecs", "unknown unit"),
        ("10", "no unit"),
        ("nan", "a number and a unit"),
        ("inf", "a number and a unit"),
        ("1e3ms", "a number and a unit"),
        ("", "empty"),
        ("11h", "unknown unit"),
        ("99999999 s", "longer than"),
        ("ms", "a number and a unit"),
    ],
)
def test_anything_else_is_one_sentence(text: str, why: str) -> None:
    with pytest.raises(UnreadableInput, match=why) as caught:
        parse_duration_ns(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)
