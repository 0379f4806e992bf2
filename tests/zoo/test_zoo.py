"""A slice of the truth bench: a few stalls of every kind, under this interpreter, on a machine that may be busy.

What a busy machine may spoil is the bench's to measure (lengths, above all); here it is what any machine has to tell.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from tests.zoo import observe
from tests.zoo.judge import Verdict, judge
from tests.zoo.observe import CannotRun, Seen, Subject
from tests.zoo.program.kinds import KINDS

EACH = 2
MISSES = 2  # in the whole slice, of each aspect


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What the program did, and what was found."""
    subject = Subject(sys.executable, request.param)
    try:
        return observe.stalls(subject, tmp_path_factory.mktemp("zoo") / "zoo.stall", (), EACH, seed=3)
    except CannotRun as reason:
        pytest.skip(str(reason))


@pytest.fixture
def verdicts(seen: Seen) -> Sequence[Verdict]:
    """Of the stalls whose own cause made them: a busy machine may leave few of those that compute."""
    found = judge(seen.truths, seen.findings)
    if len(found) <= len(KINDS) * EACH // 2:
        pytest.skip("the machine was too busy: most stalls were waits for a CPU, whatever the program did")
    return found


@pytest.mark.parametrize("aspect", ["found", "cause", "call", "line", "resource"])
def test_stalls_are_found_and_put_down_to_cause_call_line_and_resource(
    verdicts: Sequence[Verdict], aspect: str
) -> None:
    wrong = [f"{one.kind}: {one.said}" for one in verdicts if not getattr(one, aspect)]
    right = {one.kind for one in verdicts if getattr(one, aspect)}
    never = {one.kind for one in verdicts} - right
    assert not never, "\n".join(wrong)
    assert len(wrong) <= MISSES, "\n".join(wrong)


def test_each_ledger_sums_to_its_stall(seen: Seen) -> None:
    possible = set(KINDS) - {kind for kinds in seen.impossible.values() for kind in kinds}
    assert {truth.kind for truth in seen.truths} == possible
    assert all(sum(found.ledger.values()) == found.stall.duration_ns for found in seen.findings.stalls)
