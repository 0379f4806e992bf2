"""The last resort: gdb calls the interpreter's functions. It stops every thread for 0.2 to 1 s.

Measured on targets that allocate all the time: 2 of 50 died, since gdb may stop them inside the allocator. No
breakpoints: a debugger that is killed leaves them behind, and the target dies of them later.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

from stallscope.attach.facts import Facts
from stallscope.errors import NotObservable

_LIMIT_S = 30.0


def run(facts: Facts, source: bytes) -> int:
    """Have the source run in the main thread; how long gdb was at it, in ns. Raises NotObservable."""
    program = shutil.which("gdb")
    if program is None:
        raise NotObservable(
            "--method debugger needs gdb, and there is none here: install it (Debian, Ubuntu, Fedora: the package gdb)"
        )
    _rehearse(program)
    begun = time.monotonic_ns()
    said = _talk(program, facts.pid, _steps(source))
    if "$stallscope = 0" not in said:
        raise NotObservable(f"gdb could not call into process {facts.pid}: {_why(said)}; use --method ptrace")
    return time.monotonic_ns() - begun


def _rehearse(program: str) -> None:
    """Call into a child of our own first. Raises NotObservable.

    A gdb that does not know all of the CPU's registers (13.1 on a new one) fails as it writes them, and breaks off the
    system call that the process is in: a target that slept died of "Unknown error 514".
    """
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        said = _talk(program, child.pid, ['printf "$stallscope = %d\\n", ((int (*)(void)) getpid)()'])
        child.kill()
    if f"$stallscope = {child.pid}" not in said:
        raise NotObservable(f"gdb cannot call into processes on this machine: {_why(said)}; use --method ptrace")


def _why(said: str) -> str:
    lines = [line.rstrip(". ") for line in said.splitlines() if line.strip() and not line.startswith("[Inferior")]
    return lines[-1] if lines else "it said nothing"


def _steps(source: bytes) -> list[str]:
    text = "".join(f"\\{byte:03o}" for byte in source)
    return [
        "set pagination off",
        "set confirm off",
        "thread 1",
        "set $held = ((int (*)(void)) Py_IsInitialized)() ? ((int (*)(void)) PyGILState_Ensure)() : -1",
        f'set $result = $held < 0 ? 1 : ((int (*)(const char *)) PyRun_SimpleString)("{text}")',
        "set $released = $held < 0 ? 0 : ((int (*)(int)) PyGILState_Release)($held)",
        'printf "$stallscope = %d\\n", $result',
    ]


def _talk(program: str, pid: int, steps: list[str]) -> str:
    """What gdb says. At our limit it is interrupted, not killed: it must undo what it has begun."""
    command = [program, "-nx", "-batch", "-p", str(pid), *[word for step in steps for word in ("-ex", step)]]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return process.communicate(timeout=_LIMIT_S)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        return process.communicate()[0].decode("utf-8", "replace")
