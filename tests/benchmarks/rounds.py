"""Ways to measure a loop, taking turns in one process; ``cost --library`` runs it under the observed interpreter.

Short rounds in one process, because two processes differ by more than what is asked here: in where their memory lies,
and in what else the machine does meanwhile. A round is some slices of a few milliseconds, so that on a busy machine
enough of them run undisturbed: their lowest tenth repeats to a few nanoseconds where medians of longer ones differed by
hundreds. Prints one JSON line: {workload: {way: [CPU ns of each in each slice]}}.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import types
from _thread import get_native_id
from pathlib import Path
from typing import Any

from workload import SHORT, use  # type: ignore[import-not-found]

_AGENT = Path(__file__).parents[2] / "stallscope" / "agent"
_THRESHOLD_NS = 10_000_000
_SLICES = 12  # a round


def main(library: str, rounds: int, loop: str) -> dict[str, dict[str, list[float]]]:
    """Measure every way in every round, in an order that changes."""
    use(loop)
    agent = types.ModuleType("agent")  # without the rest of stallscope, which needs a newer Python
    agent.__path__ = [str(_AGENT)]
    sys.modules["agent"] = agent
    from agent.pulse import load  # type: ignore[import-not-found]

    pulse = load(library)
    ways: dict[str, Bare] = {
        "bare": Bare(),
        "a thread": Beside(),
        "pulse": Iterations(pulse),
    }
    if loop == "asyncio":  # its handles are in Python, for us to replace
        ways.update({"agent": Wrapped(), "pulse, runner": Runner(pulse)})
    figures: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways} for name in SHORT}
    for name, workload in SHORT.items():
        for _ in range(rounds):
            for way in random.sample(list(ways), len(ways)):
                with ways[way]:
                    workload()  # what is done once: files are opened, handlers met, pages touched
                    figures[name][way] += [workload()["ns"] for _ in range(_SLICES)]
    return figures


class Bare:
    """Nothing of ours."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Beside(Bare):
    """A thread that sleeps, as a pool's does and as ours do: the kernel and libc are quicker for a process of one."""

    def __enter__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._over.wait)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Wrapped(Bare):
    """The agent alone: its Python wrappers around the wait and the handlers."""

    def __enter__(self) -> None:
        from agent.aboard import Agent  # type: ignore[import-not-found]

        config = {"threshold_ns": _THRESHOLD_NS, "owner_pid": os.getpid(), "follow": False}
        self._agent = Agent({**config, "hand_over": lambda memory, greeting: None})
        self._agent.start()

    def __exit__(self, *_: object) -> None:
        self._agent.stop()


class Iterations(Bare):
    """The pulse's exact iterations and calls, asyncio's own handlers."""

    def __init__(self, pulse: Any) -> None:
        from agent import layout, memory  # type: ignore[import-not-found]

        self._pulse, self._slot_at = pulse, layout.LOOPS_AT
        self._memory = memory.Memory(_THRESHOLD_NS)
        self._track = asyncio.BaseEventLoop._set_coroutine_origin_tracking  # type: ignore[attr-defined]

    def __enter__(self) -> None:
        assert self._pulse.start(self._memory.mapping, _THRESHOLD_NS)
        asyncio.BaseEventLoop._set_coroutine_origin_tracking = self._tracking()  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        asyncio.BaseEventLoop._set_coroutine_origin_tracking = self._track  # type: ignore[attr-defined]
        self._pulse.stop()

    def _tracking(self) -> Any:
        pulse, slot_at, track = self._pulse, self._slot_at, self._track
        runs = False

        def observed(loop: Any, enabled: bool) -> None:  # as a run begins, and as it ends
            nonlocal runs
            track(loop, enabled)
            runs = not runs
            if runs:
                assert pulse.open(slot_at, loop._selector, loop, get_native_id(), False)
            else:
                pulse.close()

        return observed


class Runner(Iterations):
    """The same, and the builtin in the place of ``Handle._run``."""

    def __init__(self, pulse: Any) -> None:
        from agent import handlers

        super().__init__(pulse)
        self._handlers = handlers.HandlerTable(self._memory)
        self._run = asyncio.Handle._run

    def __enter__(self) -> None:
        from agent import runner

        functions = self._pulse.functions
        assert runner.obstacle(functions, self._run) == ""
        made = runner.put_together(functions, self._run, self._handlers, print, print)
        assert made is not None
        super().__enter__()
        asyncio.Handle._run = made  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign]
        self._pulse.functions["runner_off"]()
        super().__exit__()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
