"""The ways into a process, gentlest first, and which of them can be taken."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stallscope.attach import debugger, remote_exec
from stallscope.attach.facts import Facts
from stallscope.attach.inject import Plan, inject
from stallscope.errors import NotObservable

AUTO, COOPERATIVE, REMOTE_EXEC, PTRACE, DEBUGGER = "auto", "cooperative", "remote-exec", "ptrace", "debugger"
METHODS = (AUTO, COOPERATIVE, REMOTE_EXEC, PTRACE, DEBUGGER)
_NO_DOOR = "it has left no door open for stallscope"


@dataclass(frozen=True, slots=True)
class Arrival:
    """The source runs, or is about to: for how long the main thread was stopped in ns, for how long of that it only
    waited for a processor, and what is to be called once it has run."""

    method: str
    pause_ns: int
    waited_ns: int
    ran: Callable[[], None]


def bring(facts: Facts, source: bytes, method: str, directory: Path) -> Arrival:
    """Have the source run in the process's main thread. Raises NotObservable with the reason.

    ``directory`` is for a file that the target reads: it must stay until the source has run.
    """
    if method == COOPERATIVE:
        raise NotObservable(
            f"--method cooperative cannot be used for process {facts.pid}: {_NO_DOOR}; use --method auto, or start "
            "the program with stallscope run"
        )
    if method == DEBUGGER:
        return Arrival(DEBUGGER, debugger.run(facts, source), 0, _nothing)
    if method == REMOTE_EXEC or (method == AUTO and remote_exec.unusable_reason(facts) is None):
        try:
            return _by_remote_exec(facts, source, directory)
        except NotObservable:  # switched off, or the main thread is blocked: the next way copes with both
            if method == REMOTE_EXEC:
                raise
    plan = Plan(facts, source)
    injected = inject(plan)
    return Arrival(PTRACE, injected.pause_ns, injected.waited_ns, plan.ran if injected.queued else _nothing)


def unusable_reasons(facts: Facts) -> dict[str, str | None]:
    """Why each way is closed for this process, ``auto`` left out; None where it may be tried."""
    return {
        COOPERATIVE: _NO_DOOR,
        REMOTE_EXEC: remote_exec.unusable_reason(facts) or remote_exec.locked_reason(facts),
        PTRACE: None,
        DEBUGGER: None if shutil.which("gdb") else "there is no gdb here (install the package gdb)",
    }


def _by_remote_exec(facts: Facts, source: bytes, directory: Path) -> Arrival:
    """What failed: to remove the file when the flag is gone. The interpreter takes the flag back before it reads."""
    directory.chmod(0o755)  # there is nothing secret in it, and the target may be another user's
    path = directory / "start.py"
    path.write_bytes(source)
    path.chmod(0o644)
    with remote_exec.opened(facts) as door:
        return Arrival(REMOTE_EXEC, door.run(str(path)), 0, _nothing)


def _nothing() -> None:
    """No page to give back."""
