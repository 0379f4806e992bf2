"""What a system call touched, from its name and the text of its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stallscope.ingest.descriptors import CHANGES, MAKERS, Descriptors, path_of, peer_of
from stallscope.recording.nouns import Call, Resource

PATH_CALLS = {
    "open", "openat", "openat2", "creat", "stat", "lstat", "newfstatat", "fstatat64", "statx", "access", "faccessat",
    "faccessat2", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "readlink",
    "readlinkat", "link", "linkat", "symlink", "symlinkat", "chmod", "fchmodat", "chown", "fchownat", "truncate",
    "utimensat", "statfs", "chdir", "execve", "execveat", "mknod", "mknodat", "getxattr", "setxattr", "mount",
}  # fmt: skip
SLEEPS = {"nanosleep", "clock_nanosleep", "pause", "rt_sigtimedwait"}
CHILD_WAITS = {"wait4", "waitid", "waitpid"}
BIRTHS = {"clone", "clone3", "fork", "vfork"}
EPOLL_WAITS = {"epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_wait_old"}
POLL_WAITS = {"poll", "ppoll", "select", "pselect6", "_newselect"}
WAITS = EPOLL_WAITS | POLL_WAITS
TO_SECOND = {"sendfile": 1, "sendfile64": 1}
"""Calls whose second descriptor is the file: the first is a socket that takes what the file gives."""
POLLED = re.compile(r"fd=(\d+(?:<(?:->|[^<>])*>)?)|\[(\d+(?:<(?:->|[^<>])*>)?)")
SEVERAL = re.compile(r"fd=.*?fd=|\[\d+(?:<(?:->|[^<>])*>)? \d|nfds: (?:[2-9]|\d\d)|\bn: \d")
NO_DESCRIPTOR = {
    "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "getpid", "gettid", "exit", "exit_group", "kill",
    "tgkill", "rt_sigaction", "rt_sigprocmask", "sched_yield", "set_robust_list", "getrandom", "uname", "prctl",
    "arch_prctl", "umask", "sync", "getrusage", "sched_getaffinity", "socket", "membarrier", "rseq", "restart_syscall",
    *BIRTHS,
}  # fmt: skip

WHOLE = {name.encode() for name in {*PATH_CALLS, *POLL_WAITS, *TO_SECOND, "connect", "sendto"}}
"""Calls whose description takes more than their first argument …"""
BARE = {name.encode() for name in {*NO_DESCRIPTOR, *SLEEPS}}
"""… and those whose takes none."""
CHANGING = {name.encode() for name in {*MAKERS, *CHANGES, "close"}}


def describe(name: str, arguments: str, table: Descriptors, position: int) -> Call:
    """A call with its resource, as far as the text and the descriptor table at that position tell."""
    if name in PATH_CALLS:
        return Call(name, path_of(arguments))
    if name in SLEEPS:
        return Call(name, Resource("timer", "sleep"))
    if name in CHILD_WAITS:
        return Call(name, Resource("child", _first(arguments)))
    if name == "futex":
        return Call(name, Resource("lock", _first(arguments)))
    if name in POLL_WAITS:
        return _polled(name, arguments, table, position)
    if name in NO_DESCRIPTOR:
        return Call(name)
    return _on_descriptor(name, arguments, table, position)


class Describer:
    """Describes the calls of one stall: like calls share one description until a descriptor changes."""

    def __init__(self, table: Descriptors) -> None:
        self._table = table
        self._known: dict[tuple[bytes, bytes], Call] = {}

    def describe(self, name: bytes, arguments: bytes, position: int) -> Call:
        telling = arguments if name in WHOLE else b"" if name in BARE else arguments.partition(b",")[0]
        key = name, telling
        call = self._known.get(key)
        if call is None:
            words = arguments.decode("utf-8", "replace")
            call = self._known[key] = describe(name.decode(), words, self._table, position)
        if name in CHANGING:
            self._known = {}
        return call


def _on_descriptor(name: str, arguments: str, table: Descriptors, position: int) -> Call:
    if name in TO_SECOND:
        arguments = arguments.partition(", ")[2]
    found = table.resource(arguments, position)
    if found is None or found[0] < 0:
        return Call(name)
    addressed = peer_of(arguments) if name in ("connect", "sendto") and "family" in arguments else None
    return Call(name, addressed or found[1], f"fd {found[0]}")


def _polled(name: str, arguments: str, table: Descriptors, position: int) -> Call:
    """poll() and select() wait for the first descriptor of their set."""
    watched = POLLED.search(arguments)
    found = table.resource(watched[1] or watched[2], position) if watched else None
    return Call(name, found[1], f"fd {found[0]}") if found else Call(name)


def _first(arguments: str) -> str:
    first = arguments.partition(",")[0]
    return first.rpartition(": ")[2].strip() or "unknown"


def watches_several(arguments: str) -> bool:
    """Whether a poll() or select() watches more than one descriptor: with one, it is a client's wait for its answer."""
    return SEVERAL.search(arguments) is not None


def one_of(names: Iterable[str]) -> bytes:
    """A regular expression for a call of one of these names, its opening parenthesis included.

    By first letter, so that a name that is none of them costs little.
    """
    endings: dict[str, list[str]] = {}
    for name in sorted(names):
        endings.setdefault(name[0], []).append(name[1:])
    return "(?:{})\\(".format("|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in endings.items())).encode()
