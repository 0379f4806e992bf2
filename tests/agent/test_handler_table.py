"""Who the handlers are: the table that gives each a histogram."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from stallscope.agent import layout
from stallscope.agent.handlers import HandlerTable, base_of
from stallscope.agent.memory import Memory


@pytest.fixture
def table() -> Iterator[HandlerTable]:
    memory = Memory(threshold_ns=10_000_000)
    yield HandlerTable(memory)
    memory.close_fd()


def _made(number: int) -> Any:
    """A function with a code object and a name of its own."""
    space: dict[str, Any] = {}
    exec(compile(f"def handler_{number}(): pass", f"handler_{number}.py", "exec"), space)
    return space[f"handler_{number}"]


def test_a_handler_without_a_slot_is_known_the_next_time(table: HandlerTable) -> None:
    """A test session runs thousands of coroutines: all those after the 512th were identified at each of their calls."""
    made = [_made(number) for number in range(layout.HANDLERS + 10)]
    bases = [base_of(table, handler, None) for handler in made]
    assert len(set(bases)) == layout.HANDLERS  # slot 0 gathers the rest
    assert bases[-1] == bases[-2]
    assert table.bases[id(made[-1].__code__)] == bases[-1]


def test_a_handler_without_a_slot_keeps_its_name(table: HandlerTable) -> None:
    """In a stall's report it is no "(other handlers)"."""
    made = [_made(number) for number in range(layout.HANDLERS + 10)]
    for handler in made:
        base_of(table, handler, None)
    assert table.name_of(made[-1].__code__) == f"handler_{layout.HANDLERS + 9}"
    assert table.name_of(made[0].__code__) == "handler_0"


def test_what_is_held_has_a_bound(table: HandlerTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that compiles functions all its life long must not find all of them kept by us."""
    monkeypatch.setattr(importlib.import_module("stallscope.agent.handlers"), "_KNOWN_MAX", 600)
    bases = [base_of(table, _made(number), None) for number in range(700)]
    assert len(table.bases) == 600
    assert bases[-1] == table._base(0)
