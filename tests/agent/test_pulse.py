"""What the agent makes of what the pulse's library says, without the library."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from stallscope.agent.pulse import Pulse


def resting(*answers: tuple[int, int, int, int]) -> tuple[Pulse, list[tuple[int, int]]]:
    """One whose waits end with these (token, late_ns, has_ended, is_over), and how long each was to be."""
    asked: list[tuple[int, int]] = []
    left = iter(answers)

    def wait(ns: int, longest_ns: int) -> tuple[int, int, int, int]:
        asked.append((ns, longest_ns))
        return next(left)

    functions: dict[str, Any] = defaultdict(lambda: list)
    functions["wait"] = wait
    return Pulse(functions), asked


def test_an_iteration_that_has_ended_says_how_late_we_were_but_has_no_stack() -> None:
    pulse, _ = resting((7, 5_000, 1, 1), (8, 6_000, 0, 1))
    pulse.wait(1, 1)
    pulse.wait(1, 1)
    (ended, running) = pulse._captured
    assert ended == (7, 5_000, [], None)
    assert running[:2] == (8, 6_000)
    assert running[2]


def test_to_give_way_is_one_short_rest_that_takes_what_is_wanted() -> None:
    pulse, asked = resting((7, 5_000, 0, 0))
    pulse.give_way()
    assert asked == [(100_000, 100_000)]
    assert [token for token, *_ in pulse._captured] == [7]


def test_a_rest_goes_on_when_all_that_was_wanted_is_a_stack() -> None:
    pulse, asked = resting((7, 0, 0, 0), (0, 0, 0, 1))
    pulse.wait(3_600_000_000_000, 3_600_000_000_000)
    assert len(asked) == 2
