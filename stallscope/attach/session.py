"""A whole stay in a running process: coming aboard, watching, leaving."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stallscope.attach import box as boxes
from stallscope.attach.facts import Facts, observer
from stallscope.attach.methods import AUTO, bring
from stallscope.attach.payload import Modules, modules_for, payload_of, starter
from stallscope.collect.collector import DRAIN_S, Collector
from stallscope.errors import NotObservable

_ANSWER_S = 10.0
_LEAVE_S = 3.0
_LOOK_S = 0.002
_Found = TypeVar("_Found")
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class Boarded:
    """How the agent came aboard, and the longest time for which the target was held up, in ns.

    ``stop_ns`` is that of the thread that was turned aside, for at most ``waited_ns`` of which it was ready and had
    no processor (where the source is queued, without the tenth of a millisecond in which it then runs); ``piece_ns``
    is the longest piece of the agent's own start, for which the interpreter's lock was held in another thread, and
    ``piece_ran_ns`` the most that a piece ran.
    """

    method: str
    stop_ns: int
    waited_ns: int
    piece_ns: int
    piece_ran_ns: int

    @property
    def own_ns(self) -> int:
        """The longest of them on a machine that has a processor for everybody."""
        return max(self.stop_ns - self.waited_ns, self.piece_ran_ns)

    @property
    def pause_ns(self) -> int:
        """The longest of them."""
        return max(self.stop_ns, self.piece_ns)


def come_aboard(
    facts: Facts, collector: Collector, threshold_ns: int, modules: Modules | None = None, method: str = AUTO
) -> Boarded:
    """Bring the agent into the process and wait until it observes. Raises NotObservable with the reason.

    ``modules`` is what ``modules_for`` made for another process of the same program, to make it once only.
    """
    config = {
        "threshold_ns": threshold_ns, "owner_pid": 0 if "pid" in facts.other_namespaces() else os.getpid(),
        "follow": False, "attached": True,
    }  # fmt: skip
    library = collector.pulse.read_bytes() if collector.pulse is not None else None
    modules = modules or modules_for(facts)
    payload = payload_of(modules, config, library)
    name = boxes.PREFIX + secrets.token_hex(4)
    with tempfile.TemporaryDirectory(prefix="stallscope-") as directory:
        arrival = bring(facts, starter(name, modules), method, Path(directory))
        box = _box(facts, name)
    with box:
        arrival.ran()
        box.fill(payload)
        said = _last_words(facts, collector, box)
        pieces_ns = int(said.get("longest_ns", 0)), int(said.get("most_ran_ns", 0))
        return Boarded(arrival.method, arrival.pause_ns, arrival.waited_ns, *pieces_ns)


def _box(facts: Facts, name: str) -> boxes.Box:
    """The box, when the thread that was turned aside has made it."""
    found = _awaited(facts, lambda: boxes.opened(facts.pid, name))
    if found is None:
        raise NotObservable(
            f"the agent did not start in process {facts.pid} within {_ANSWER_S:.0f} s: its main thread is "
            f"{facts.doing()} and has not come back to Python; nothing was left behind, try again later"
        )
    return found


def _last_words(facts: Facts, collector: Collector, box: boxes.Box) -> dict[str, Any]:
    """Take the agent's memory over, and wait for its last words: the longest pieces of its start, in ns."""
    ended, said = _heard(facts, box.said)
    if not ended:
        _take_memory(facts, collector, said)
        box.taken()
        _, said = _heard(facts, box.said)
    _judge(facts, said)
    return said


def _heard(facts: Facts, look: Callable[[], tuple[bool, dict[str, Any]] | None]) -> tuple[bool, dict[str, Any]]:
    try:
        heard = _awaited(facts, look)
    except ValueError as error:
        raise NotObservable(f"the agent could not start in process {facts.pid}: {error}") from None
    if heard is None:
        raise NotObservable(
            f"the agent did not finish its start in process {facts.pid} within {_ANSWER_S:.0f} s: other threads "
            "keep the interpreter busy; it leaves by itself, try again later"
        )
    return heard


def _take_memory(facts: Facts, collector: Collector, said: dict[str, Any]) -> None:
    import json

    descriptor = boxes.open_memory(f"/proc/{facts.pid}/fd/{said.get('memory')}")
    if descriptor is None:
        raise NotObservable(f"the agent's shared memory in process {facts.pid} cannot be opened")
    try:
        greeting = json.loads(said["greeting"])
    except (KeyError, ValueError, TypeError):
        greeting = {}
    collector.take(descriptor, {**greeting, "pid": facts.pid, "parent": facts.parent})


def _judge(facts: Facts, said: dict[str, Any]) -> None:
    """Raises NotObservable unless all went well."""
    if "ok" in said:
        return
    if "owner" in said:
        raise NotObservable(
            f"process {facts.pid} is observed already, by {observer(int(said['owner']))}: wait for it to end, end it, "
            f"or look on with stallscope top {facts.pid}"
        )
    raise NotObservable(f"the agent could not start in process {facts.pid}: {said.get('error')}")


def _awaited(facts: Facts, look: Callable[[], _Found | None]) -> _Found | None:
    """What ``look`` finds, once it is not None; None when our patience ends. NotObservable if the target does."""
    limit = time.monotonic() + _ANSWER_S
    while time.monotonic() < limit:
        try:
            found = look()
        except (FileNotFoundError, ProcessLookupError):
            found = None
        if found is not None:
            return found
        if not facts.lives():
            raise NotObservable(f"process {facts.pid} ended while the agent was coming aboard")
        time.sleep(_LOOK_S)
    return None


def watch(
    collector: Collector, duration_s: float, each: Sequence[Callable[[float], None]], is_over: Callable[[], bool]
) -> str:
    """Drain until the time is over, a signal asks to end, or ``is_over``; why it ended.

    ``each`` are called with the elapsed seconds, at every drain, ten times a second.
    """
    begun = time.monotonic()
    while True:
        arrived = signal.sigtimedwait(_ENDING, DRAIN_S)
        elapsed = time.monotonic() - begun
        collector.drain()
        for tell in each:
            tell(elapsed)
        if arrived is not None:
            return "asked to end"
        if collector.stopped:
            return collector.stopped
        if is_over():
            return "the process ended, or the agent left it"
        if elapsed >= duration_s:
            return ""


def leave(collector: Collector) -> bool:
    """Ask the agent to leave, and complete the recording; whether it has left."""
    limit = time.monotonic() + _LEAVE_S
    collector.drain()  # one that has just come aboard is to leave too
    left = collector.dismiss()
    while not left and time.monotonic() < limit:
        time.sleep(0.005)
        left = collector.dismiss()
    collector.finish()
    return left


@contextmanager
def endings_held() -> Iterator[None]:
    """Signals that end us wait until we ask for them: nothing is cut short, least of all the leaving."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        while signal.sigtimedwait(_ENDING, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
