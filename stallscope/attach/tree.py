"""A process and its Python children, those born later too: each is attached to by itself, from outside.

What failed: to let the agent of a master follow its forks. Workers that are spawned (uvicorn, multiprocessing)
never come out of a fork, and a worker that was there before would still need to be attached to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from stallscope.attach.checks import require_attachable
from stallscope.attach.facts import Facts
from stallscope.attach.payload import Modules, modules_for
from stallscope.attach.session import come_aboard
from stallscope.collect.collector import Collector
from stallscope.errors import NotObservable

_SERVERS = ("gunicorn", "uvicorn", "hypercorn")
_LOOK_S = 0.5
_TRIES = 6  # looks: an interpreter that is only starting is not ready for us


def descendants(pid: int) -> list[int]:
    """The processes below this one, parents first."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, children.read_text().split())
    return found + [below for child in found for below in descendants(child)]


def is_master(facts: Facts) -> bool:
    """Whether it is a server that leaves the work to its children."""
    names = {os.path.basename(word).partition(":")[0] for word in facts.command()[:4]}
    return bool(names & set(_SERVERS)) and _python_below(facts.pid) != []


class Tree:
    """Boards a process, or every Python process of its ``family``; ``tell`` gets a sentence about each."""

    def __init__(
        self, root: Facts, collector: Collector, threshold_ns: int, method: str, tell: Callable[[str], None], *,
        family: bool,
    ) -> None:  # fmt: skip
        self._root = root
        self._collector = collector
        self._threshold_ns = threshold_ns
        self._method = method
        self._tell = tell
        self._family = family
        self._modules: dict[tuple[int, int], Modules] = {}
        self._tries: dict[int, int] = {}
        self._next_s = _LOOK_S
        self._aboard: set[int] = set()

    def board(self) -> None:
        """Board those that are there. Raises NotObservable, with the first reason, when that is nobody."""
        reasons = [why for pid in self._members() if (why := self._try(pid))]
        if not self._aboard:
            raise reasons[0] if reasons else NotObservable(f"process {self._root.pid} has no Python child")

    def look(self, elapsed_s: float) -> None:
        """Board newcomers; looks twice a second, at most."""
        if not self._family or elapsed_s < self._next_s:
            return
        self._next_s = elapsed_s + _LOOK_S
        for pid in self._members():
            if pid not in self._aboard and self._tries.get(pid, 0) < _TRIES:
                self._try(pid)

    def is_over(self) -> bool:
        """Whether nobody is left who could be watched."""
        return not self._collector.is_anyone_left and not (self._family and self._root.lives())

    def _members(self) -> list[int]:
        if not self._family:
            return [self._root.pid]
        return [*([self._root.pid] if self._root.is_python() else []), *_python_below(self._root.pid)]

    def _try(self, pid: int) -> NotObservable | None:
        self._tries[pid] = self._tries.get(pid, 0) + 1
        try:
            facts = Facts(pid)
            require_attachable(facts)
            boarded = come_aboard(facts, self._collector, self._threshold_ns, self._code(facts), self._method)
        except OSError:
            return NotObservable(f"process {pid} has just ended")
        except NotObservable as error:
            if self._tries[pid] == _TRIES:
                self._tell(str(error))
            return error
        self._aboard.add(pid)
        self._tell(
            f"aboard process {pid} ({facts.name}) by {boarded.method}; "
            f"it was paused for {boarded.pause_ns / 1e6:.1f} ms at most"
        )
        return None

    def _code(self, facts: Facts) -> Modules:
        """The agent's code, made once for each program."""
        program = os.stat(f"/proc/{facts.pid}/exe")
        key = program.st_dev, program.st_ino
        if key not in self._modules:
            self._modules[key] = modules_for(facts)
        return self._modules[key]


def _python_below(pid: int) -> list[int]:
    return [child for child in descendants(pid) if _is_python(child)]


def _is_python(pid: int) -> bool:
    """Whether it is Python, and may ever run a loop: the tracker that multiprocessing starts never does."""
    try:
        facts = Facts(pid)
        return facts.is_python() and not any("multiprocessing.resource_tracker" in word for word in facts.command())
    except OSError:
        return False
