"""Every reason why a process cannot be attached to, each with its remedy; gentlest question first.

The rules are those of ptrace(2) ("Ptrace access mode checking") and of the Yama security module.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

from stallscope.attach import elf
from stallscope.attach.facts import Facts, status_of, user_name
from stallscope.errors import NotObservable

NEWEST = (3, 15)
_CAP_SYS_PTRACE = 19
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_MACHINES = {"x86_64": elf.X86_64, "aarch64": elf.AARCH64}
_NEEDS = "attach needs CPython 3.8 or newer"


class Refused(NotObservable):
    """Why not, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what, self.remedy = what, remedy


def require_attachable(facts: Facts) -> None:
    """Ask everything. Raises NotObservable with the first reason, and the next step."""
    for _, check in CHECKS:
        check(facts)


def ptrace_scope() -> int:
    """Yama's ``ptrace_scope``; 0 where there is no Yama."""
    try:
        return int(_YAMA.read_text())
    except (OSError, ValueError):
        return 0


def may_trace_any() -> bool:
    """Whether we have CAP_SYS_PTRACE and Yama heeds it (it does not at 3)."""
    return bool(int(status_of("self")["CapEff"], 16) >> _CAP_SYS_PTRACE & 1) and ptrace_scope() < 3


def _runs(facts: Facts) -> None:
    pid, name = facts.pid, facts.name
    group = int(facts.status.get("Tgid", pid))
    if group != pid:
        raise Refused(f"{pid} is a thread of process {group}", f"attach to {group}")
    if facts.state in "ZX":
        raise Refused(f"process {pid} ({name}) is a zombie", "it has ended, and there is nothing to see")
    if facts.state == "T":
        raise Refused(f"process {pid} ({name}) is stopped", f"continue it with kill -CONT {pid}, then attach")
    if facts.status.get("Kthread") == "1" or "VmSize" not in facts.status:
        raise Refused(f"process {pid} ({name}) is a thread of the kernel", "give the PID of a Python program")


def _untraced(facts: Facts) -> None:
    tracer = int(facts.status.get("TracerPid", "0"))
    if not tracer:
        return
    try:
        by = status_of(tracer).get("Name", "?")
    except OSError:
        by = "?"
    raise Refused(
        f"process {facts.pid} is traced by process {tracer} ({by}), and only one can", "end that one, then attach"
    )


def _permission(facts: Facts) -> None:
    if not may_trace_any():
        _own(facts)
    try:
        _ = facts.executable, facts.modules, facts.other_namespaces()
    except (FileNotFoundError, ProcessLookupError):
        raise NotObservable(f"process {facts.pid} has just ended") from None
    except PermissionError:
        whose = "of the same user" if facts.uid == os.geteuid() else f"of user {user_name(facts.uid)}"
        raise Refused(
            f"the kernel does not let you look into process {facts.pid}, though it is {whose}: it is not dumpable "
            "(setuid, or by prctl), or has more capabilities",
            "run stallscope as root, in a container with --cap-add=SYS_PTRACE (Kubernetes: "
            "securityContext.capabilities.add: [SYS_PTRACE]), or from the host",
        ) from None


def _own(facts: Facts) -> None:
    me, owner = user_name(os.geteuid()), user_name(facts.uid)
    if os.geteuid() == 0 and facts.uid != 0:
        raise Refused(
            f"process {facts.pid} is of user {owner}, and you are root without CAP_SYS_PTRACE, as in a container",
            "add --cap-add=SYS_PTRACE to docker run (Kubernetes: securityContext.capabilities.add: [SYS_PTRACE]), "
            f"or attach from the host, or as {owner}",
        )
    if facts.uid != os.geteuid():
        as_whom = "root" if facts.uid == 0 else f"{owner} or as root"
        raise Refused(f"process {facts.pid} is of user {owner}, and you are {me}", f"run stallscope as {as_whom}")
    scope = ptrace_scope()
    if scope >= 3:
        raise Refused(
            "kernel.yama.ptrace_scope is 3, which forbids everybody to attach",
            "it cannot be lowered without a reboot; start the program with stallscope run",
        )
    if scope:
        raise Refused(
            f"kernel.yama.ptrace_scope is {scope}, which forbids to attach",
            "run stallscope as root, or sysctl kernel.yama.ptrace_scope=0",
        )


def _machine(facts: Facts) -> None:
    if "shstk" in facts.status.get("x86_Thread_features", ""):
        raise Refused(
            f"process {facts.pid} runs with a shadow stack, which forbids to turn its thread aside",
            "start the program with stallscope run",
        )
    try:
        machine = elf.Elf(f"/proc/{facts.pid}/exe").machine
    except ValueError:
        raise Refused(
            f"process {facts.pid} ({facts.executable}) is a 32-bit program, and attach needs a 64-bit one",
            "start the program with stallscope run",
        ) from None
    if machine != _MACHINES.get(platform.machine()):
        raise Refused(
            f"attach works on x86-64 and aarch64, from a stallscope of the same architecture, and process {facts.pid} "
            f"({facts.executable}) is of another",
            "start the program with stallscope run",
        )


def _python(facts: Facts) -> None:
    pid, executable = facts.pid, facts.executable
    if any("pypy" in os.path.basename(path) for path in [executable, *facts.modules]):
        raise Refused(f"process {pid} is PyPy ({executable})", _NEEDS)
    python = facts.python
    if python is None:
        raise _without_interpreter(facts)
    if not python.elf.symbols(["PyCode_NewWithPosOnlyArgs", "Py_Version"]):  # since 3.8, until 3.11; since 3.11
        known = re.search(r"python(\d\.\d+)", python.path)
        version = f"Python {known[1]}" if known else "an old Python"
        raise Refused(f"process {pid} is {version} ({executable})", _NEEDS)
    if facts.version is not None and facts.version > NEWEST:
        raise Refused(
            f"process {pid} is Python {facts.version[0]}.{facts.version[1]}, which this stallscope does not know",
            "upgrade stallscope, or start the program with stallscope run",
        )


def _without_interpreter(facts: Facts) -> Refused:
    if re.fullmatch(r"python[0-9.]*[a-z]*", os.path.basename(facts.executable)):
        return Refused(
            f"process {facts.pid} is {facts.executable}, a Python whose functions have no symbols (static and "
            "stripped), so attach is impossible",
            "start the program with stallscope run",
        )
    return Refused(f"process {facts.pid} is {facts.executable}, which is not Python", _NEEDS)


Check = Callable[[Facts], None]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("runs", _runs),
    ("not traced", _untraced),
    ("permission", _permission),
    ("architecture", _machine),
    ("interpreter", _python),
)
"""(name, check): each raises NotObservable, and may rely on those before it."""
