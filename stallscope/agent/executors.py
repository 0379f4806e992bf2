"""Thread pools: how many threads each has, how many work, and how many calls wait in its queue.

Nothing is hooked. ``concurrent.futures.thread`` knows its threads and their queues; each thread
still holds the arguments that it was started with, the first of which leads to its executor. Ten
looks a second are enough to see a queue that stays; each costs a few microseconds a pool.
"""

from __future__ import annotations

import sys

from . import text
from .loop_state import attribute_of

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple


_LOOK_NS = 100_000_000
_TELL_NS = 5_000_000_000
_MOST_POOLS = 32


class Seen:
    """One pool, as often as it was looked at."""

    __slots__ = ("busy", "deepest", "looks", "most_threads", "queued_looks", "threads")

    def __init__(self) -> None:
        self.most_threads: Optional[int] = None  # that it may have
        self.threads = 0  # the most that it had
        self.looks = 0
        self.busy = 0  # threads at work, summed over the looks
        self.queued_looks = 0  # that met a call in its queue
        self.deepest = 0  # calls in its queue at once


class Executors:
    """Looks at the thread pools of this process; only the watchdog's thread calls it."""

    def __init__(self) -> None:
        self._seen: Dict[Tuple[str, bool], Seen] = {}
        self._looked_ns = self._told_ns = 0

    def due(self, now: int) -> bool:
        """Whether it is time for another look."""
        return now - self._looked_ns >= _LOOK_NS

    def are_there(self) -> bool:
        """Whether there is a pool to look at."""
        return bool(getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", None))

    def look(self, now: int, loops: List[Any]) -> None:
        """Count what the pools do at this moment; ``loops`` are those that run."""
        self._looked_ns = now
        module: Any = sys.modules.get("concurrent.futures.thread")
        threads = getattr(module, "_threads_queues", None)
        if not threads:
            return
        try:
            pools = _by_queue(list(threads.items()))
        except RuntimeError:  # a thread came or went meanwhile
            return
        defaults = [attribute_of(loop, "_default_executor") for loop in loops]
        for queue, several in pools:
            executor = _executor_of(several[0])
            key = (_name_of(several[0]), any(executor is one for one in defaults if one is not None))
            if key in self._seen or len(self._seen) < _MOST_POOLS:
                _count(self._seen.setdefault(key, Seen()), queue, executor, len(several))

    def to_tell(self, now: Optional[int] = None) -> Optional[str]:
        """The record of all pools so far, for the ring: every few seconds, and without ``now`` at once."""
        if not self._seen or (now is not None and now - self._told_ns < _TELL_NS):
            return None
        self._told_ns = now or 0
        pools = [
            [name, default, s.most_threads, s.threads, s.looks, s.busy, s.queued_looks, s.deepest]
            for (name, default), s in self._seen.items()
        ]
        return text.encode({"executors": pools})


def _by_queue(items: List[Any]) -> List[Tuple[Any, List[Any]]]:
    pools: Dict[int, Tuple[Any, List[Any]]] = {}
    for thread, queue in items:
        pools.setdefault(id(queue), (queue, []))[1].append(thread)
    return list(pools.values())


def _executor_of(thread: Any) -> Any:
    """The pool that started a thread: ``Thread.run`` forgets its arguments only when it ends."""
    arguments = getattr(thread, "_args", None)
    reference = arguments[0] if isinstance(arguments, tuple) and arguments else None
    return reference() if callable(reference) else None


def _name_of(thread: Any) -> str:
    name = getattr(thread, "_name", None)
    return name.rpartition("_")[0][:128] if isinstance(name, str) else ""


def _count(seen: Seen, queue: Any, executor: Any, threads: int) -> None:
    plain = getattr(sys.modules.get("_queue"), "SimpleQueue", None)
    waiting = queue.qsize() if type(queue) is plain else 0  # any other may take a lock to answer
    size = getattr(executor, "_max_workers", None)
    idle = getattr(getattr(executor, "_idle_semaphore", None), "_value", 0)
    seen.most_threads = size if type(size) is int else seen.most_threads
    seen.threads = max(seen.threads, threads)
    seen.looks += 1
    seen.busy += max(0, threads - (idle if type(idle) is int else 0))
    seen.queued_looks += waiting > 0
    seen.deepest = max(seen.deepest, waiting)
