"""What the kernel says about a process before anybody touches it."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path

from stallscope.attach import elf
from stallscope.errors import NotObservable, UnreadableInput

_VERSION_IN_PATH = re.compile(r"python(3\.\d+)")
_VERSION_IN_CODE = re.compile(rb"\0(3\.(?:8|9|10))\.\d+[^\0]{0,8}\0")
_LIBRARIES = {"_uvloop": "uvloop", "/uvloop/": "uvloop", "_gevent_c": "gevent", "/greenlet/": "greenlet"}


class Facts:
    """One process as it was when it was asked for. Raises FileNotFoundError when there is none."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status = status_of(pid)
        self.name = self.status.get("Name", "?")
        self.uid = int(self.status.get("Uid", "0").split()[0])
        self.gid = int(self.status.get("Gid", "0").split()[0])
        self.parent = int(self.status.get("PPid", "0"))
        self.threads = int(self.status.get("Threads", "0"))

    @property
    def state(self) -> str:
        """One letter, as ps shows it."""
        return self.status.get("State", "?")[:1]

    @property
    def inner_pid(self) -> int:
        """Its number in its own PID namespace."""
        return int(self.status.get("NSpid", str(self.pid)).split()[-1])

    @cached_property
    def executable(self) -> str:
        """The path of its program, as it sees it."""
        return os.readlink(f"/proc/{self.pid}/exe").removesuffix(" (deleted)")

    @cached_property
    def modules(self) -> dict[str, list[elf.Mapped]]:
        """Its mapped files."""
        return elf.modules(elf.mappings(self.pid))

    @cached_property
    def python(self) -> elf.Module | None:
        """The module that is its interpreter; None when there is none, or it has no symbols."""
        return elf.interpreter_of(self.pid, self.modules, "Py_IsInitialized")

    @cached_property
    def version(self) -> tuple[int, int] | None:
        """The interpreter's (major, minor); None where nothing tells."""
        module = self.python
        if module is None:
            return None
        at = module.addresses(["Py_Version"]).get("Py_Version")
        if at is not None:  # since 3.11
            with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
                memory.seek(at)
                found = memory.read(4)
            return found[3], found[2]
        texts = [module.path, *self.modules]
        told = next((match[1] for text in texts if (match := _VERSION_IN_PATH.search(text))), None)
        told = told or module.elf.told(_VERSION_IN_CODE)
        return None if told is None else (int(told.partition(".")[0]), int(told.partition(".")[2]))

    @cached_property
    def libraries(self) -> list[str]:
        """Libraries with loops of their own that it has loaded."""
        return sorted({name for path in self.modules for sign, name in _LIBRARIES.items() if sign in path})

    def is_python(self) -> bool:
        """Whether it has an interpreter in it, as far as we may know."""
        try:
            return self.python is not None
        except OSError:
            return False

    def other_namespaces(self) -> list[str]:
        """The kinds of namespace in which it is not with us; ``root`` for another root directory."""
        kinds = ("mnt", "pid", "net", "user", "ipc", "uts", "cgroup")
        others = [kind for kind in kinds if _namespace(self.pid, kind) != _namespace("self", kind)]
        return others if os.path.samefile(f"/proc/{self.pid}/root", "/") else [*others, "root"]

    def is_near(self) -> bool:
        """Whether it sees the files that we see, as we see them."""
        return not {"mnt", "user", "root"} & set(self.other_namespaces())

    def container(self) -> str:
        """The container that its control group names; empty where it names none."""
        try:
            groups = Path(f"/proc/{self.pid}/cgroup").read_text()
        except OSError:
            return ""
        found = re.search(r"(docker|libpod|crio|containerd|kubepods)[^\n]*?([0-9a-f]{12})[0-9a-f]{52}", groups)
        return f"{found[1]} {found[2]}" if found else ""

    def library_path(self) -> dict[str, str]:
        """What of its environment decides whether its program starts."""
        try:
            entries = Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return {}
        pairs = (os.fsdecode(entry).partition("=") for entry in entries)
        return {name: value for name, _, value in pairs if name == "LD_LIBRARY_PATH"}

    def command(self) -> list[str]:
        """Its command line; empty where there is none, or it may not be read."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
        except OSError:
            return []

    def doing(self) -> str:
        """What its main thread does, for a sentence."""
        try:
            where = Path(f"/proc/{self.pid}/wchan").read_text()
        except OSError:
            where = "0"
        return f"waiting in the kernel ({where})" if where not in ("0", "") else "in C code"

    def lives(self) -> bool:
        """Whether the process still runs."""
        try:
            return status_of(self.pid).get("State", "Z")[0] not in "ZX"
        except (OSError, IndexError):
            return False

    def describe(self) -> str:
        """A line about it: interpreter, threads, user, container and namespaces, libraries."""
        version = f"CPython {self.version[0]}.{self.version[1]}" if self.version else "CPython"
        others = self.other_namespaces()
        parts = [
            f"{version} ({self.executable})",
            f"{self.threads} thread{'s' if self.threads != 1 else ''}",
            f"user {user_name(self.uid)}",
            self.container(),
            f"other {', '.join(others)} namespace" if others else "",
            f"with {', '.join(self.libraries)}" if self.libraries else "",
        ]
        return ", ".join(filter(None, parts))


def facts_of(text: str) -> Facts:
    """The facts about the process that the user named. Raises UnreadableInput for no number, NotObservable for none."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 0 < int(text) < 1 << 22:
        raise UnreadableInput(f"{text!r} is no process number: give a PID as ps shows it, such as 4242")
    pid = int(text)
    if pid == os.getpid():
        raise UnreadableInput(f"{pid} is stallscope itself: give the PID of the program to look into")
    try:
        return Facts(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise NotObservable(
            f"there is no process {pid}: it has ended, or runs in another container (use its number on this side)"
        ) from None


def status_of(pid: int | str) -> dict[str, str]:
    """The fields of ``/proc/PID/status``, proc(5). Raises OSError when there is no such process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def observer(pid: int) -> str:
    """The stallscope of that process number, for a sentence: by its command where that can be seen."""
    if not pid:
        return "a stallscope outside its container"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        words = []
    at = next((at for at, word in enumerate(words) if os.path.basename(word) == "stallscope"), None)
    command = "" if at is None else f"{' '.join(['stallscope', *words[at + 1 :]])} "
    return f"{command}(process {pid})" if command else f"process {pid}"


def user_name(uid: int) -> str:
    """The user's name, or number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"


def _namespace(pid: int | str, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except FileNotFoundError:  # a kernel without this kind
        return ""
