"""A slice of the truth bench: a few stalls of every kind, under this interpreter, on a machine that may be busy."""

from __future__ import annotations

import sys

import pytest

from stallscope.analysis.findings import Findings
from tests.zoo.stall_program import KINDS
from tests.zoo.stalls import Truth, Verdict, judge, observe

EACH = 3
MISSES = 1  # in the whole slice


@pytest.fixture(scope="module")
def slice_of_zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Truth], Findings]:
    """What the program did, and what was found."""
    return observe(sys.executable, tmp_path_factory.mktemp("zoo") / "zoo.stall", EACH, seed=3)


@pytest.fixture
def verdicts(slice_of_zoo: tuple[list[Truth], Findings]) -> list[Verdict]:
    """Of the stalls whose own cause made them: a busy machine may leave few of those that compute."""
    found = judge(*slice_of_zoo)
    if len(found) <= len(KINDS) * EACH // 2:
        pytest.skip("the machine was too busy: most stalls were waits for a CPU, whatever the program did")
    return found


def test_every_stall_is_found(verdicts: list[Verdict]) -> None:
    assert [one for one in verdicts if not one.found] == []


@pytest.mark.parametrize("aspect", ["cause", "call", "line"])
def test_each_is_put_down_to_its_cause_its_call_and_its_line(verdicts: list[Verdict], aspect: str) -> None:
    assert len([one for one in verdicts if not getattr(one, aspect)]) <= MISSES, verdicts


def test_each_ledger_sums_to_its_stall(slice_of_zoo: tuple[list[Truth], Findings]) -> None:
    truths, findings = slice_of_zoo
    assert len(truths) == len(KINDS) * EACH
    assert all(sum(found.ledger.values()) == found.stall.duration_ns for found in findings.stalls)
