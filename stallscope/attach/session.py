"""A whole stay in a running process: coming aboard, watching, leaving."""

from __future__ import annotations

import ast
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stallscope.attach.facts import Facts
from stallscope.attach.inject import Plan, inject
from stallscope.attach.payload import line_for, payload_for
from stallscope.collect.collector import DRAIN_S, Collector
from stallscope.errors import NotObservable

_ANSWER_S = 10.0
_LEAVE_S = 3.0
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class Boarded:
    """How the agent came aboard: the longest time for which the target was held up, in ns."""

    pause_ns: int


def come_aboard(facts: Facts, collector: Collector, threshold_ns: int, payload: bytes | None = None) -> Boarded:
    """Bring the agent into the process and wait until it answers. Raises NotObservable with the reason.

    ``payload`` is what ``payload_for`` made for another process of the same program, to make it once only.
    """
    directory = Path(collector.socket_path).parent
    brought, answers = directory / "agent", directory / "answers"
    brought.write_bytes(payload_for(facts) if payload is None else payload)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(answers))
        if facts.uid != os.geteuid():
            for path in (directory, brought, answers, Path(collector.socket_path)):
                os.chown(path, facts.uid, facts.gid)
        config = {
            "threshold_ns": threshold_ns, "socket": collector.socket_path, "owner_pid": os.getpid(),
            "follow": False, "attached": True,
        }  # fmt: skip
        plan = Plan(facts.pid, line_for(brought, config, answers))
        injected = inject(plan)
        spent = _answered(facts, collector, listener)
        if injected.queued:
            plan.ran()
    return Boarded(max(injected.pause_ns, spent))


def _answered(facts: Facts, collector: Collector, listener: socket.socket) -> int:
    """Wait for the answer, and greet the agent; how long its start took, in ns."""
    listener.settimeout(0.005)
    limit = time.monotonic() + _ANSWER_S
    while time.monotonic() < limit:
        collector.drain()
        try:
            said = ast.literal_eval(listener.recv(4096).decode())
        except TimeoutError:
            _require_alive(facts)
            continue
        if "ok" in said:
            collector.drain()
            return int(said["spent_ns"])
        if "owner" in said:
            raise NotObservable(
                f"process {facts.pid} is observed already, by stallscope with process number {said['owner']}: wait for "
                "it to end, or end it"
            )
        raise NotObservable(f"the agent could not start in process {facts.pid}: {said.get('error')}")
    raise NotObservable(
        f"the agent did not start in process {facts.pid} within {_ANSWER_S:.0f} s: its main thread is "
        f"{_doing(facts.pid)} and has not come back to Python; nothing was left behind, try again later"
    )


def _doing(pid: int) -> str:
    try:
        where = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        where = "0"
    return f"waiting in the kernel ({where})" if where not in ("0", "") else "in C code"


def _require_alive(facts: Facts) -> None:
    if not Path(f"/proc/{facts.pid}").exists() or Facts(facts.pid).status.get("State", "Z")[0] in "ZX":
        raise NotObservable(f"process {facts.pid} ended while the agent was coming aboard")


def watch(facts: Facts, collector: Collector, duration_s: float, tell: Callable[[float], None]) -> str:
    """Drain until the time is over, a signal asks to end, or the target ends; why it ended.

    ``tell`` is called with the elapsed seconds, at each drain.
    """
    begun = time.monotonic()
    while True:
        arrived = signal.sigtimedwait(_ENDING, DRAIN_S)
        elapsed = time.monotonic() - begun
        collector.drain()
        tell(elapsed)
        if arrived is not None:
            return "asked to end"
        if collector.stopped:
            return collector.stopped
        if all(observed.is_over for observed in collector.watched):
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
