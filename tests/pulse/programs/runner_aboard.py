"""The handler runner aboard the program that imports this; standard library only, CPython 3.8+."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import types
from _thread import get_native_id
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 (CPython 3.8)

_agent: Any = types.ModuleType("agent")  # without the rest of stallscope, which needs a newer Python
_agent.__path__ = [str(Path(__file__).parents[3] / "stallscope" / "agent")]
sys.modules["agent"] = _agent

from agent import (  # type: ignore[import-not-found]  # noqa: E402
    handlers,
    layout,
    memory,
    pulse,
    runner,
    stacks,  # noqa: F401 (for those who import this)
)

original = asyncio.Handle._run


class Aboard:
    """The pulse and its runner, until ``leave``."""

    def __init__(self, threshold_ns: int = 10_000_000, adopt: Callable[[Any], None] | None = None) -> None:
        self.pulse = pulse.load(os.environ["PULSE"])
        self.functions = self.pulse.functions
        self.memory = memory.Memory(threshold_ns)
        self.handlers = handlers.HandlerTable(self.memory)
        self.errors: list[BaseException] = []
        self.opened = 0
        assert self.pulse.start(self.memory.mapping, threshold_ns)
        assert runner.obstacle(self.functions, original) == ""
        self.builtin = runner.put_together(
            self.functions, original, self.handlers, adopt or self.adopt, self.errors.append
        )
        assert self.builtin is not None
        atexit.register(self.leave)
        asyncio.Handle._run = self.builtin  # type: ignore[method-assign]

    def adopt(self, loop: Any) -> None:
        """Observe the loop that has just run a handler in this thread."""
        slot_at = layout.LOOPS_AT + self.opened * layout.LOOP_BYTES
        self.opened += 1
        assert self.pulse.open(slot_at, loop._selector, loop, get_native_id(), True)

    def leave(self) -> None:
        """As the agent does; at the latest as the program ends."""
        if asyncio.Handle.__dict__["_run"] is self.builtin:
            asyncio.Handle._run = original  # type: ignore[method-assign]
        self.functions["runner_off"]()
        self.pulse.stop()

    def calls(self) -> dict[str, int]:
        """How often each handler was called, by its name; those that were drawn stand for others."""
        counted = {name: self._total(base) for base, name in self.handlers._names.items()}
        return {name: calls for name, calls in counted.items() if calls}

    def _total(self, base: int) -> int:
        return sum(self.memory.cells[base : base + layout.BUCKETS])
