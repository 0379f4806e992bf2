"""What the kernel says about a process before anybody touches it, and every reason to refuse.

The rules are those of ptrace(2) ("Ptrace access mode checking") and of the Yama security module.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
from pathlib import Path

from stallscope.attach import elf
from stallscope.errors import NotObservable, UnreadableInput

_CAP_SYS_PTRACE = 19
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_OLDEST = (3, 8)


class Facts:
    """What matters of one process; ``require_attachable`` raises NotObservable with the reason and the next step."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status = _status(pid)
        self.name = self.status.get("Name", "?")
        self.uid = int(self.status.get("Uid", "0").split()[0])
        self.gid = int(self.status.get("Gid", "0").split()[0])

    def require_attachable(self) -> None:
        """Go through everything that could stand in the way, gentlest question first."""
        self._require_runs()
        self._require_untraced()
        self._require_permission()
        self._require_same_namespaces()
        self._require_python()

    def _require_runs(self) -> None:
        thread_group = int(self.status.get("Tgid", self.pid))
        if thread_group != self.pid:
            raise NotObservable(f"{self.pid} is a thread of process {thread_group}: attach to {thread_group}")
        state = self.status.get("State", "?")[:1]
        if state in "ZX":
            raise NotObservable(f"process {self.pid} ({self.name}) is a zombie: it has ended; there is nothing to see")
        if state == "T":
            raise NotObservable(
                f"process {self.pid} ({self.name}) is stopped: continue it with kill -CONT {self.pid}, then attach"
            )
        if self.status.get("Kthread") == "1" or "VmSize" not in self.status:
            raise NotObservable(f"process {self.pid} ({self.name}) is a thread of the kernel, not a program")

    def _require_untraced(self) -> None:
        tracer = int(self.status.get("TracerPid", "0"))
        if tracer:
            by = _status(tracer).get("Name", "?") if Path(f"/proc/{tracer}").exists() else "?"
            raise NotObservable(
                f"process {self.pid} is traced by process {tracer} ({by}), and only one can: end that one, then attach"
            )

    def _require_permission(self) -> None:
        if not _may_trace_any():
            self._require_own()
        try:
            os.readlink(f"/proc/{self.pid}/exe")
            elf.mappings(self.pid)
        except FileNotFoundError:
            raise NotObservable(f"process {self.pid} has just ended") from None
        except PermissionError:
            raise NotObservable(
                f"the kernel does not let you look into process {self.pid}, though it is of the same user: it is not "
                "dumpable (setuid, or by prctl), or has more capabilities; run stallscope as root, in a container "
                "with --cap-add=SYS_PTRACE (Kubernetes: securityContext.capabilities.add), or from the host"
            ) from None

    def _require_own(self) -> None:
        scope = ptrace_scope()
        if self.uid != os.geteuid():
            raise NotObservable(
                f"process {self.pid} is of user {_user(self.uid)}, and you are {_user(os.geteuid())}: "
                f"run stallscope as {_user(self.uid)} or as root"
            )
        if scope:
            remedy = "run stallscope as root" if scope < 3 else "it cannot be lowered without a reboot; start with run"
            lower = ", or sysctl kernel.yama.ptrace_scope=0" if scope < 3 else ""
            raise NotObservable(f"kernel.yama.ptrace_scope is {scope}, which forbids to attach: {remedy}{lower}")

    def _require_same_namespaces(self) -> None:
        same_root = os.path.samefile(f"/proc/{self.pid}/root", "/")
        if all(_namespace(self.pid, kind) == _namespace("self", kind) for kind in ("mnt", "pid")) and same_root:
            return
        inside = self.status.get("NSpid", "").split()[-1:] or ["?"]
        raise NotObservable(
            f"process {self.pid} runs in another container, namespace or root directory: this version attaches from "
            f"inside it only; run stallscope there (the process is number {inside[0]} there)"
        )

    def _require_python(self) -> None:
        executable = os.readlink(f"/proc/{self.pid}/exe")
        by_path = elf.modules(elf.mappings(self.pid))
        if "shstk" in self.status.get("x86_Thread_features", ""):
            raise NotObservable(
                f"process {self.pid} runs with a shadow stack, which forbids to turn its thread aside: "
                "start the program with stallscope run"
            )
        _require_machine(self.pid, executable)
        if any("pypy" in os.path.basename(path) for path in [executable, *by_path]):
            raise NotObservable(f"process {self.pid} is PyPy ({executable}): attach needs CPython 3.8 or newer")
        python = elf.interpreter_of(self.pid, by_path, "Py_IsInitialized")
        if python is None:
            raise NotObservable(
                f"process {self.pid} is {executable}, which is not Python (or a static one without symbols): "
                "attach needs CPython 3.8 or newer"
            )
        if not python.elf.symbols(["PyCode_NewWithPosOnlyArgs", "Py_Version"]):  # since 3.8, until 3.11; since 3.11
            known = re.search(r"python(\d\.\d+)", python.path)
            version = f"Python {known[1]}" if known else "an old Python"
            raise NotObservable(f"process {self.pid} is {version} ({executable}): attach needs CPython 3.8 or newer")


def facts_of(text: str) -> Facts:
    """The facts about the process that the user named. Raises UnreadableInput for no number, NotObservable for none."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 0 < int(text) < 1 << 22:
        raise UnreadableInput(f"{text!r} is no process number: give a PID as ps shows it, such as 4242")
    pid = int(text)
    if pid == os.getpid():
        raise UnreadableInput(f"{pid} is stallscope itself: give the PID of the program to look into")
    try:
        return Facts(pid)
    except FileNotFoundError:
        raise NotObservable(
            f"there is no process {pid}: it has ended, or runs in another container (use its number on this side)"
        ) from None


def ptrace_scope() -> int:
    """Yama's ``ptrace_scope``; 0 where there is no Yama."""
    try:
        return int(_YAMA.read_text())
    except (OSError, ValueError):
        return 0


def _may_trace_any() -> bool:
    """Whether we have CAP_SYS_PTRACE and Yama heeds it (it does not at 3)."""
    return bool(int(_status("self")["CapEff"], 16) >> _CAP_SYS_PTRACE & 1) and ptrace_scope() < 3


def _require_machine(pid: int, executable: str) -> None:
    try:
        machine = elf.Elf(f"/proc/{pid}/exe").machine
    except ValueError:
        raise NotObservable(f"process {pid} ({executable}) is a 32-bit program: attach needs a 64-bit one") from None
    if machine != elf.X86_64 or platform.machine() != "x86_64":
        raise NotObservable(
            f"attach works on x86-64 so far, and process {pid} ({executable}) is of another architecture; "
            "start the program with stallscope run"
        )


def _status(pid: int | str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"
