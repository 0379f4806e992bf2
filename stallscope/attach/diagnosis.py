"""What ``doctor`` finds: what can be seen from here, of a process or of any, by which way, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from typing import Any

from stallscope.attach import checks, methods
from stallscope.attach.facts import Facts, user_name
from stallscope.errors import NotObservable


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer; ``remedy`` says what to do where ``ok`` is false."""

    what: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings; ``method`` is the way that attach would take first, None where there is none."""

    findings: list[Finding]
    method: str | None = None
    target: dict[str, Any] = field(default_factory=dict)

    @property
    def is_attachable(self) -> bool:
        """Whether attach would get in, as far as can be told without touching anything."""
        return self.method is not None


def of_host() -> Diagnosis:
    """What may be done here at all."""
    return Diagnosis([_permission(), _architecture(), _debugger()])


def of_process(facts: Facts) -> Diagnosis:
    """Every check on one process, up to the first that fails; then the ways in, and what would be seen."""
    found: list[Finding] = []
    for name, check in checks.CHECKS:
        try:
            check(facts)
        except checks.Refused as refused:
            found.append(Finding(name, False, refused.what, refused.remedy))
            return Diagnosis(found, None, {"pid": facts.pid, "name": facts.name})
        except NotObservable as error:
            found.append(Finding(name, False, str(error)))
            return Diagnosis(found, None, {"pid": facts.pid, "name": facts.name})
        found.append(Finding(name, True, _passed(name, facts)))
    found += [*_namespaces(facts), *_ways(facts), *_loops(facts)]
    return Diagnosis(found, _first_way(facts), _target(facts))


def _permission() -> Finding:
    scope, me = checks.ptrace_scope(), user_name(os.geteuid())
    if checks.may_trace_any():
        return Finding("permission", True, f"{me}, with CAP_SYS_PTRACE: processes of every user")
    if os.geteuid() == 0:
        return Finding(
            "permission", not scope, "root without CAP_SYS_PTRACE: processes of root with no more capabilities",
            "add --cap-add=SYS_PTRACE to docker run (Kubernetes: securityContext.capabilities.add: [SYS_PTRACE])",
        )  # fmt: skip
    if scope:
        return Finding("permission", False, f"kernel.yama.ptrace_scope is {scope}: no process at all", _remedy(scope))
    return Finding("permission", True, f"{me}: processes of {me}; those of others need root")


def _remedy(scope: int) -> str:
    if scope >= 3:
        return "it cannot be lowered without a reboot; start the program with stallscope run"
    return "run stallscope as root, or sysctl kernel.yama.ptrace_scope=0"


def _architecture() -> Finding:
    machine = platform.machine()
    ok = machine in ("x86_64", "aarch64")
    return Finding("architecture", ok, machine, "" if ok else "start the program with stallscope run")


def _debugger() -> Finding:
    path = shutil.which("gdb")
    remedy = "" if path else "needed for --method debugger alone: install the package gdb"
    return Finding("debugger", path is not None, path or "no gdb", remedy)


def _passed(name: str, facts: Facts) -> str:
    """What there is to say of a check that found nothing wrong."""
    if name == "runs":
        return f"{facts.name}, {facts.threads} thread{'s' if facts.threads != 1 else ''}, state {facts.state}"
    if name == "permission":
        return f"process of {user_name(facts.uid)}, and you are {user_name(os.geteuid())}"
    if name == "architecture":
        return platform.machine()
    if name == "interpreter":
        version = f"{facts.version[0]}.{facts.version[1]}" if facts.version else "of unknown version"
        return f"CPython {version} ({facts.executable})"
    return "nobody"


def _namespaces(facts: Facts) -> list[Finding]:
    others, container = facts.other_namespaces(), facts.container()
    if not others:
        return []
    inside = f"; it is number {facts.inner_pid} there" if facts.inner_pid != facts.pid else ""
    return [
        Finding("namespaces", True, f"{container or 'other'} ({', '.join(others)}): attach reaches into it{inside}")
    ]


def _ways(facts: Facts) -> list[Finding]:
    reasons = methods.unusable_reasons(facts)
    return [Finding(f"method {name}", why is None, why or "usable") for name, why in reasons.items()]


def _first_way(facts: Facts) -> str | None:
    usable = [name for name, why in methods.unusable_reasons(facts).items() if why is None]
    return usable[0] if usable else None


def _loops(facts: Facts) -> list[Finding]:
    found = [Finding("asyncio loops", True, "every iteration, handler, stall and its stack")]
    for name in facts.libraries:
        if name in ("uvloop", "gevent"):
            found.append(Finding(f"{name} loops", False, f"{name} runs in C", "only the pulse can see its iterations"))
    return found


def _target(facts: Facts) -> dict[str, Any]:
    return {
        "pid": facts.pid, "name": facts.name, "executable": facts.executable,
        "version": None if facts.version is None else f"{facts.version[0]}.{facts.version[1]}",
        "threads": facts.threads, "user": user_name(facts.uid), "container": facts.container() or None,
        "other_namespaces": facts.other_namespaces(), "libraries": facts.libraries, "observer": sys.version.split()[0],
    }  # fmt: skip
