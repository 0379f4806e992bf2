"""What an observed program knows of itself; put beside each of them. Standard library only, CPython 3.8+."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import selectors
import sys
import time
from types import FunctionType
from typing import Any, Callable  # noqa: UP035 (CPython 3.8)

monotonic_ns = time.monotonic_ns
sleep = time.sleep


class Selector(selectors.EpollSelector):
    """Counts and times its own waits, from within: an agent's iteration must lie inside ours."""

    def __init__(self) -> None:
        super().__init__()
        self.selects = 0
        self.iterations: list[list[int]] = []
        self._returned = 0

    def select(self, timeout: Any = None) -> Any:
        """The wait; its entry ends an iteration, its return begins one."""
        if self._returned:
            self.iterations.append([self._returned, monotonic_ns()])
        events = super().select(timeout)
        self.selects += 1
        self._returned = monotonic_ns()
        return events


class Loop(asyncio.SelectorEventLoop):
    """A loop on such a selector, which can be asked after the loop was closed too."""

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)


def named_loop(name: str) -> Any:
    """A loop whose class has this name: the recording tells loops of one thread apart by it."""
    return type(name, (Loop,), {})()


def agent() -> Any:
    """The agent aboard this process."""
    package: Any = sys.modules["_stallscope_agent"]
    return package._agent


def agent_module(name: str) -> Any:
    """One of the agent's modules."""
    return sys.modules["_stallscope_agent." + name]


def is_hooked() -> list[str]:
    """Names of the places where the agent can be seen."""
    loops: Any = asyncio.BaseEventLoop
    places = []
    if type(asyncio.Handle._run) is not FunctionType or asyncio.Handle._run.__qualname__ != "Handle._run":
        places.append("Handle._run")
    if "tracking.<locals>" in loops._set_coroutine_origin_tracking.__qualname__:
        places.append("_set_coroutine_origin_tracking")
    if any("_stallscope" in type(getattr(callback, "__self__", None)).__module__ for callback in gc.callbacks):
        places.append("gc.callbacks")
    return places


def is_observed(loop: Any) -> bool:
    """Whether something of the agent's is on this loop or its selector."""
    return "_stallscope_state" in loop.__dict__ or "select" in loop.selector.__dict__


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    """Ask again and again, up to a deadline; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        sleep(0.005)
    return True


def spin(milliseconds: float) -> None:
    """Compute for so long."""
    end = monotonic_ns() + int(milliseconds * 1e6)
    while monotonic_ns() < end:
        pass


def stall_until_seen() -> None:
    """Block the running loop until the watchdog has sampled it, and a threshold longer."""
    loop: Any = asyncio.get_running_loop()
    state = loop._stallscope_state
    wait_until(lambda: state.progress is not None and state.progress.handler is not None)
    sleep(0.012)


def tell(**facts: object) -> None:
    """What the test reads: one line, written at once, since children may tell at the same time."""
    sys.stdout.flush()
    os.write(1, json.dumps(facts).encode() + b"\n")
