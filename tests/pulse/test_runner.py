"""The builtin in the place of ``Handle._run``: it counts each handler, and the program does not notice."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.pulse.conftest import Programs

MS = 1_000_000


@pytest.fixture
def found(programs: Programs, request: pytest.FixtureRequest) -> Any:
    """What the program found that the test is marked with."""
    name, *arguments = request.node.get_closest_marker("program").args
    return json.loads(programs.run("handling", name, *map(str, arguments)).stdout)


def test_exceptions_go_asyncios_way_to_the_letter(programs: Programs) -> None:
    bare, observed = (_comparable(programs.run("raising", bare=bare)) for bare in (True, False))
    assert observed == bare
    assert len(re.findall("^== ", observed, re.MULTILINE)) > 60
    assert "runner.py" not in observed


def _comparable(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, without addresses and times."""
    return re.sub(r"0x[0-9a-f]+|when=[0-9.]+|took [0-9.]+ seconds|poll .* took .*", "…", done.stdout + done.stderr)


@pytest.mark.program("long_calls")
def test_long_calls_are_counted_exactly_under_their_names(found: Any) -> None:
    expected = {"function": 50, "Thing.method": 50, "Thing.__call__": 50, "inner": 50, "coroutine": 200}
    calls = found["calls"]
    assert {name: calls[f"long_calls.<locals>.{name}"] for name in expected} == expected
    assert calls["sleep"] == 50


@pytest.mark.program("short_calls")
def test_short_calls_are_drawn_evenly(found: Any) -> None:
    # 30,000 of each, drawn one time in 16: a standard deviation of 2.2 %.
    assert found == {"one": pytest.approx(30_000, rel=0.15), "other": pytest.approx(30_000, rel=0.15)}


@pytest.mark.program("adoption")
def test_a_loop_that_is_not_observed_is_offered_to_the_agent(found: Any) -> None:
    offered, at_most, is_the_loop = found["refused"]
    assert 1 <= offered <= at_most
    assert is_the_loop
    assert found["in_thread"] == offered + 1
    assert found["opened"] == 3
    assert found["calls"] == 3 * 99  # the first handler of each loop was over when it was adopted


@pytest.mark.program("overdue")
def test_handlers_of_an_overdue_iteration_are_noted(found: Any) -> None:
    (slow, slow_ns), (after, after_ns) = (found["parts"][f"overdue.<locals>.{name}"] for name in ("slow", "after"))
    assert (slow, after) == (1, 2)
    assert 60 * MS <= slow_ns <= found["ns"]
    assert after_ns < found["ns"] - slow_ns


@pytest.mark.program("own_calls")
def test_the_agents_own_calls_are_not_the_programs(found: Any) -> None:
    assert found == {"ours": [0], "theirs": [1]}


@pytest.mark.program("resting")
def test_a_stack_that_is_taken_ends_no_rest(found: Any) -> None:
    assert found == {"functions": ["until_met"] * 3, "rested": True}


@pytest.mark.program("working")
def test_c_code_that_kept_the_gil_from_an_agent_at_work_is_found_to(found: Any) -> None:
    """The agent came back from its sleep without a wait, and took the time for Python's."""
    assert found == {"function": "compute", "late": True}


@pytest.mark.program("leaving")
def test_it_may_leave_while_a_handler_runs(found: Any) -> None:
    (message,) = found.pop("told")
    assert message.startswith("Exception in callback leaving.<locals>.leave()")
    assert found == {"restored": True, "seen": [1, 2], "again": 1}


@pytest.mark.program("patched")
def test_other_patches_are_left_alone(found: Any) -> None:
    replaced = "Handle._run was replaced by somebody"
    assert (found["before"], found["ours"], found["without"]) == (replaced, replaced, "the pulse has no handler runner")
    assert (found["calls"], found["counted"]) == (2, 1)
    assert (found["stays"], found["later"], found["after"]) == (True, 4, 1)


@pytest.mark.program("unusual_handles")
def test_subclasses_debug_mode_and_broken_handles(found: Any) -> None:
    assert found["calls"] == 6
    cancelled, missing, *wrong = found["told"]
    assert (cancelled, wrong) == ("TypeError", ["TypeError", "TypeError"])
    assert "_callback" in missing


@pytest.mark.program("contexts")
def test_callbacks_run_in_their_own_context(found: Any) -> None:
    assert found == {"seen": [0, 0, 1], "outside": 0, "inside": [1, 2]}


@pytest.mark.program("stacks_of_handlers")
def test_the_handler_in_progress_is_found_in_a_stack(found: Any) -> None:
    assert found == {"found": ["look", "step"] * 2}


@pytest.mark.program("own_errors")
def test_errors_of_the_agent_are_handed_over(found: Any) -> None:
    assert found == {"errors": ["ZeroDivisionError"] * 2, "seen": 3, "raised": True}


@pytest.mark.program("forked")
def test_a_child_forked_by_a_handler_goes_on_unobserved(found: Any) -> None:
    assert found == {"status": 7, "calls": 1}


@pytest.mark.program("traced")
def test_a_tracer_that_fails_loses_nothing(found: Any) -> None:
    told, has_traceback = found["told"]
    assert told.startswith("ZeroDivisionError")
    assert (has_traceback, found["whole"]) == (True, True)


@pytest.mark.program("signalled")
def test_signal_handlers_may_raise_at_any_moment(found: Any) -> None:
    assert (found["seen"], found["errors"], found["rang"]) == ([1], [], True)


@pytest.mark.program("leaks", 20_000)
def test_nothing_is_kept(found: Any) -> None:
    assert found["references"] == [0] * 7
    assert found["blocks"] < 1_000  # of 20,000 handlers, a fifth of which raise and a fifth of which cancel themselves
