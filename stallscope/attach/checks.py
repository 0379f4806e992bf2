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

OLDEST, NEWEST = (3, 8), (3, 15)
_CAP_SYS_PTRACE = 19
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_MACHINES = {"x86_64": elf.X86_64, "aarch64": elf.AARCH64}
_NEEDS = "attach needs CPython 3.8 or newer"


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
        raise NotObservable(f"{pid} is a thread of process {group}: attach to {group}")
    state = facts.status.get("State", "?")[:1]
    if state in "ZX":
        raise NotObservable(f"process {pid} ({name}) is a zombie: it has ended; there is nothing to see")
    if state == "T":
        raise NotObservable(f"process {pid} ({name}) is stopped: continue it with kill -CONT {pid}, then attach")
    if facts.status.get("Kthread") == "1" or "VmSize" not in facts.status:
        raise NotObservable(f"process {pid} ({name}) is a thread of the kernel, not a program")


def _untraced(facts: Facts) -> None:
    tracer = int(facts.status.get("TracerPid", "0"))
    if not tracer:
        return
    try:
        by = status_of(tracer).get("Name", "?")
    except OSError:
        by = "?"
    raise NotObservable(
        f"process {facts.pid} is traced by process {tracer} ({by}), and only one can: end that one, then attach"
    )


def _permission(facts: Facts) -> None:
    if not may_trace_any():
        _own(facts)
    try:
        _ = facts.executable, facts.modules, facts.other_namespaces()
    except FileNotFoundError:
        raise NotObservable(f"process {facts.pid} has just ended") from None
    except PermissionError:
        whose = "of the same user" if facts.uid == os.geteuid() else f"of user {user_name(facts.uid)} and you are root"
        raise NotObservable(
            f"the kernel does not let you look into process {facts.pid}, though it is {whose}: it is not "
            "dumpable (setuid, or by prctl), or has more capabilities; run stallscope as root, in a container "
            "with --cap-add=SYS_PTRACE (Kubernetes: securityContext.capabilities.add), or from the host"
        ) from None


def _own(facts: Facts) -> None:
    me = user_name(os.geteuid())
    if os.geteuid() == 0 and facts.uid != 0:
        raise NotObservable(
            f"process {facts.pid} is of user {user_name(facts.uid)}, and you are root without CAP_SYS_PTRACE, as in a "
            "container: add --cap-add=SYS_PTRACE (Kubernetes: securityContext.capabilities.add: [SYS_PTRACE]), or "
            f"attach from the host, or as {user_name(facts.uid)}"
        )
    if facts.uid != os.geteuid():
        raise NotObservable(
            f"process {facts.pid} is of user {user_name(facts.uid)}, and you are {me}: "
            f"run stallscope as {user_name(facts.uid)} or as root"
        )
    scope = ptrace_scope()
    if scope:
        remedy = "run stallscope as root" if scope < 3 else "it cannot be lowered without a reboot; start with run"
        lower = ", or sysctl kernel.yama.ptrace_scope=0" if scope < 3 else ""
        raise NotObservable(f"kernel.yama.ptrace_scope is {scope}, which forbids to attach: {remedy}{lower}")


def _machine(facts: Facts) -> None:
    if "shstk" in facts.status.get("x86_Thread_features", ""):
        raise NotObservable(
            f"process {facts.pid} runs with a shadow stack, which forbids to turn its thread aside: "
            "start the program with stallscope run"
        )
    try:
        machine = elf.Elf(f"/proc/{facts.pid}/exe").machine
    except ValueError:
        raise NotObservable(
            f"process {facts.pid} ({facts.executable}) is a 32-bit program: attach needs a 64-bit one"
        ) from None
    if machine != _MACHINES.get(platform.machine()):
        raise NotObservable(
            f"attach works on x86-64 and aarch64, from a stallscope of the same architecture, and process {facts.pid} "
            f"({facts.executable}) is of another: start the program with stallscope run"
        )


def _python(facts: Facts) -> None:
    pid, executable = facts.pid, facts.executable
    if any("pypy" in os.path.basename(path) for path in [executable, *facts.modules]):
        raise NotObservable(f"process {pid} is PyPy ({executable}): {_NEEDS}")
    python = facts.python
    if python is None:
        raise NotObservable(_no_interpreter(facts))
    if not python.elf.symbols(["PyCode_NewWithPosOnlyArgs", "Py_Version"]):  # since 3.8, until 3.11; since 3.11
        known = re.search(r"python(\d\.\d+)", python.path)
        version = f"Python {known[1]}" if known else "an old Python"
        raise NotObservable(f"process {pid} is {version} ({executable}): {_NEEDS}")
    if facts.version is not None and facts.version > NEWEST:
        raise NotObservable(
            f"process {pid} is Python {facts.version[0]}.{facts.version[1]}, which this version of stallscope does not "
            "know: upgrade stallscope, or start the program with stallscope run"
        )


def _no_interpreter(facts: Facts) -> str:
    if re.fullmatch(r"python[0-9.]*[a-z]*", os.path.basename(facts.executable)):
        return (
            f"process {facts.pid} is {facts.executable}, a Python whose functions have no symbols (static and "
            "stripped): attach is impossible; start the program with stallscope run"
        )
    return f"process {facts.pid} is {facts.executable}, which is not Python: {_NEEDS}"


Check = Callable[[Facts], None]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("runs", _runs),
    ("not traced", _untraced),
    ("permission", _permission),
    ("architecture", _machine),
    ("interpreter", _python),
)
"""(name, check): each raises NotObservable, and may rely on those before it."""
