"""PEP 768 from outside: CPython 3.14 and newer runs a file that is named in its memory, at its next safe point.

``sys.remote_exec`` insists on a caller of the same version; we write the same three words ourselves, through
``/proc/PID/mem``: the path, the flag, and the bit that makes the interpreter look. Offsets: the table that the target
itself holds (``_Py_DebugOffsets``); where in that table: ``pycore_debug_offsets.h`` of each version.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct

from stallscope.attach.facts import Facts
from stallscope.attach.machine import Read, this_machine
from stallscope.attach.ptrace import Thread
from stallscope.errors import NotObservable

OLDEST = (3, 14)
_COOKIE = b"xdebugpy"
_LOOK = 1 << 5  # _PY_EVAL_PLEASE_STOP_BIT, pycore_ceval.h
_INTERPRETERS_HEAD, _THREADS_MAIN = 5, 10
_SLOTS = {(3, 14): 89, (3, 15): 105}  # of ``debugger_support`` in the table: eval_breaker, then five more
_WORD, _INT = Struct("<Q"), Struct("<i")
_PATIENCE_S = 0.02
_AFTER_KICK_S = 0.05
_IN_FLIGHT_S = 0.01  # it may have seen the flag just before we took it back: it then finds the file still there


class RemoteExec:
    """The three words of one process. Raises NotObservable where there is no such door, or it is locked."""

    def __init__(self, facts: Facts) -> None:
        why = unusable_reason(facts)
        if why:
            raise NotObservable(f"--method remote-exec cannot be used for process {facts.pid}: {why}")
        assert facts.version is not None
        assert facts.python is not None
        self._pid = facts.pid
        self._memory = os.open(f"/proc/{facts.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._find(facts.python.addresses(["_PyRuntime"])["_PyRuntime"], _SLOTS[facts.version])
        except BaseException:
            os.close(self._memory)
            raise

    def _find(self, runtime: int, slot: int) -> None:
        if os.pread(self._memory, 8, runtime) != _COOKIE:
            raise NotObservable(f"the interpreter of process {self._pid} is not where its symbols say")
        interpreter = self._word(runtime + self._word(runtime + 8 * _INTERPRETERS_HEAD))
        thread = self._word(interpreter + self._word(runtime + 8 * _THREADS_MAIN))
        breaker, support, enabled, pending, path, room = (self._word(runtime + 8 * (slot + n)) for n in range(6))
        if _INT.unpack(os.pread(self._memory, 4, interpreter + enabled))[0] != 1:
            raise NotObservable(
                f"remote debugging is disabled in process {self._pid} (PYTHON_DISABLE_REMOTE_DEBUG, "
                "-X disable-remote-debug, or how it was built): use --method ptrace"
            )
        self._breaker_at, self._room = thread + breaker, room
        self._pending_at, self._path_at = thread + support + pending, thread + support + path

    def run(self, path: str) -> int:
        """Have the file run; for how long the main thread was stopped, in ns. Raises NotObservable if it does not."""
        if self._pending():
            raise NotObservable(f"another script waits to be run in process {self._pid}: try again later")
        data = os.fsencode(path) + b"\0"
        if len(data) > self._room:
            raise NotObservable(f"the path {path} is longer than the target takes")
        os.pwrite(self._memory, data, self._path_at)
        os.pwrite(self._memory, _INT.pack(1), self._pending_at)
        os.pwrite(self._memory, _WORD.pack(self._word(self._breaker_at) | _LOOK), self._breaker_at)
        if self._ran(_PATIENCE_S):
            return 0
        pause_ns = _kick(self._pid, lambda at, size: os.pread(self._memory, size, at))
        if not self._ran(_AFTER_KICK_S):
            os.pwrite(self._memory, _INT.pack(0), self._pending_at)
            time.sleep(_IN_FLIGHT_S)
            raise NotObservable(f"the main thread of process {self._pid} does not come back to Python")
        return pause_ns

    def close(self) -> None:
        """Let go of its memory."""
        os.close(self._memory)

    def _ran(self, limit_s: float) -> bool:
        limit = time.monotonic() + limit_s
        while self._pending() and time.monotonic() < limit:
            time.sleep(0.001)
        return not self._pending()

    def _pending(self) -> bool:
        return os.pread(self._memory, 4, self._pending_at) != bytes(4)

    def _word(self, at: int) -> int:
        value: int = _WORD.unpack(os.pread(self._memory, 8, at))[0]
        return value


def unusable_reason(facts: Facts) -> str | None:
    """Why this way is closed; None when it may be tried."""
    if facts.version is None or facts.version < OLDEST:
        return "it needs CPython 3.14 or newer"
    if facts.version not in _SLOTS:
        return f"the layout of CPython {facts.version[0]}.{facts.version[1]} is not known"
    if not facts.is_near():
        return "the target sees other files than we do, and it runs a file"
    return None


def locked_reason(facts: Facts) -> str | None:
    """Why the door does not open where ``unusable_reason`` found nothing; looks into the target, and writes nothing."""
    try:
        with opened(facts):
            return None
    except NotObservable as error:
        return str(error)


@contextmanager
def opened(facts: Facts) -> Iterator[RemoteExec]:
    """``RemoteExec``, closed at the end."""
    door = RemoteExec(facts)
    try:
        yield door
    finally:
        door.close()


def _kick(pid: int, read: Read) -> int:
    """Make the main thread's blocking call return EINTR, once: the interpreter then looks around. The pause in ns."""
    cpu = this_machine()
    with Thread(pid) as thread:
        thread.stop()
        now = thread.registers()
        aside = cpu.interrupted(now, read)
        if aside is not None:
            thread.set_registers(aside)
        asked = thread.asked_ns
    return time.monotonic_ns() - asked
