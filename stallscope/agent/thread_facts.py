"""What the kernel says of one of our own threads, from ``/proc/self/task/TID``.

A thread may read these of its siblings without any privilege (``ptrace_may_access`` is always
true within a thread group). Everything here is asked only while an iteration is overdue.
"""

from __future__ import annotations

import os
import sys
from _struct import unpack
from time import clock_gettime_ns, monotonic_ns

from .descriptors import moved_up
from .syscalls import NAMES

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import List, Optional, Tuple


_open, _pread, _close, _readlink, _fstat = os.open, os.pread, os.close, os.readlink, os.fstat
_PATH_BYTES = 4096
_CONTENDED_NS = 1_000_000  # a read of a few microseconds took this long: it had to wait for the GIL


def _names(text: str) -> "frozenset[str]":
    return frozenset(text.split())


# Where each call keeps what is worth showing. fd calls: the first argument is the descriptor.
_FD_CALLS = _names(
    """
    read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 fsync fdatasync flock fcntl
    ftruncate fallocate getdents64 getdents fstat recvfrom sendto recvmsg sendmsg recvmmsg sendmmsg accept
    accept4 connect sendfile sync_file_range ioctl lseek splice copy_file_range epoll_wait epoll_pwait syncfs
    shutdown close fgetxattr vmsplice tee
    """
)
_PATH_CALLS = _names(
    """
    open stat lstat access creat mkdir rmdir unlink rename chdir readlink execve truncate statfs chmod link
    symlink getxattr utime
    """
)
_PATH_AT_CALLS = _names(
    """
    openat newfstatat statx faccessat faccessat2 mkdirat unlinkat renameat renameat2 readlinkat openat2 execveat
    fchmodat utimensat fstatat linkat symlinkat
    """
)
_TIMESPEC_AT = {"nanosleep": 0, "clock_nanosleep": 2, "ppoll": 2, "pselect6": 4, "select": 4}
_POLL_CALLS = ("poll", "ppoll")


class Facts:
    """A thread's state and counters; ``None`` where the kernel does not say.

    ``call`` is (name, resource kind, resource, detail); ``switches`` are the voluntary ones.
    """

    __slots__ = ("call", "cpu_ns", "run_delay_ns", "state", "switches")

    def __init__(
        self,
        call: Optional[Tuple[str, str, str, str]] = None,
        state: str = "",
        cpu_ns: Optional[int] = None,
        run_delay_ns: Optional[int] = None,
        switches: Optional[int] = None,
    ) -> None:
        self.call, self.state, self.switches = call, state, switches
        self.cpu_ns, self.run_delay_ns = cpu_ns, run_delay_ns


class ThreadFiles:
    """The ``/proc`` files of one thread, held open (one system call a read), and its CPU clock.

    Each call gives up the GIL, and against a thread that computes it takes a switch interval
    (5 ms) to get it back: opening, reading and closing three files for each sample let only one
    sample through in a stall of 50 ms. The descriptors are high numbers, out of the program's way.
    """

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self._files = [_opened(f"/proc/self/task/{tid}/{name}") for name in ("schedstat", "syscall", "status")]

    def cpu_ns(self) -> Optional[int]:
        """CPU time of the thread until this moment; keeps the GIL, and costs half a microsecond.

        The time in ``schedstat`` will not do: of a running thread it is brought up to date at ticks of 4 ms only.
        """
        return cpu_ns_of(self.tid)

    def facts(self) -> Facts:
        """Read everything; against a busy thread only what shows that it is busy. Never raises."""
        asked, cpu = monotonic_ns(), self.cpu_ns()
        delay = _run_delay(_content(self._files[0]))
        spent = monotonic_ns() - asked
        if spent > _CONTENDED_NS and _grew(cpu, self.cpu_ns(), spent // 2):
            return Facts(None, "R", cpu, delay, None)
        try:
            call = _call(_content(self._files[1]))
            state, switches = _status(_content(self._files[2]))
        except ValueError:  # the program closed our descriptors and has files of its own there
            return Facts(None, "", cpu)
        return Facts(call, state, cpu, delay, switches)

    def close(self) -> None:
        """Close what is still ours: a program that closed all its descriptors may have reused the numbers."""
        for held in self._files:
            try:
                if held is not None and _fstat(held[0]).st_ino == held[1]:
                    _close(held[0])
            except OSError:
                continue


class StandingFiles(ThreadFiles):
    """Those of a thread that runs one loop after another: opened once, and closed by ``let_go`` alone.

    To open and close them took 0.15 ms a run, and a test session runs loops thousands of times.
    """

    def close(self) -> None:
        """A loop's run is over; there will be more."""

    def let_go(self) -> None:
        """Close them."""
        ThreadFiles.close(self)


def cpu_ns_of(tid: int) -> Optional[int]:
    """CPU time of a thread by its kernel's number; None for one that is gone, and outside of Linux.

    The clock's number is put together as the kernel wants it (CPUCLOCK_PERTHREAD and CPUCLOCK_SCHED of
    <linux/posix-timers.h>), which libc does too. What failed: ``pthread_getcpuclockid``. It reads the thread's own
    memory, and a thread that ends meanwhile takes that with it, and the program: between two bytecodes of ours the
    interpreter's lock may go to anybody.
    """
    if sys.platform != "linux":
        return None
    try:
        return clock_gettime_ns(~tid << 3 | 4 | 2)
    except OSError:
        return None


def process_lives(pid: int) -> bool:
    """Whether a process runs: one that was killed and that nobody has reaped yet does not."""
    held = _opened(f"/proc/{pid}/stat")
    if held is None:
        return False
    state = _content(held).rpartition(b")")[2].split()[:1]
    _close(held[0])
    return state not in ([], [b"Z"], [b"X"])


def _opened(path: str) -> Optional[Tuple[int, int]]:
    """(descriptor, inode number), the descriptor moved up out of the program's way; None if it can't be had."""
    try:
        low = _open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    held = moved_up(low)
    return held, _fstat(held).st_ino


def _content(held: Optional[Tuple[int, int]]) -> bytes:
    try:
        return _pread(held[0], 4096, 0) if held is not None else b""
    except OSError:
        return b""


def _grew(before: Optional[int], now: Optional[int], least: int) -> bool:
    return before is not None and now is not None and now - before >= least


def _run_delay(schedstat: bytes) -> Optional[int]:
    fields = schedstat.split()
    return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() else None


def _status(text: bytes) -> Tuple[str, Optional[int]]:
    state, switches = "", None
    for line in text.split(b"\n"):
        if line.startswith(b"State:"):
            state = line[6:].strip()[:1].decode()
        elif line.startswith(b"voluntary_ctxt_switches:"):
            switches = int(line[24:])
    return state, switches


def _call(text: bytes) -> Optional[Tuple[str, str, str, str]]:
    """Decode ``number arg0 … arg5 sp pc``; ``running`` and ``-1 sp pc`` mean no call."""
    fields = text.split()
    if len(fields) < 7 or fields[0] in (b"running", b"-1"):
        return None
    number = int(fields[0])
    name = NAMES.get(number, f"syscall_{number}")
    return (name,) + _resource(name, [int(field, 16) for field in fields[1:7]])


def call_named(number: int) -> Optional[Tuple[str, str, str, str]]:
    """A system call of which only the number is known; None for -1."""
    if number < 0:
        return None
    name = NAMES.get(number, f"syscall_{number}")
    return name, "lock" if name == "futex" else "other", "", ""


def _resource(name: str, args: List[int]) -> Tuple[str, str, str]:
    """(kind, name, detail) of what a call touches."""
    if name in _FD_CALLS:
        descriptor = args[0] & 0xFFFFFFFF
        if name == "connect":
            return _address(_memory(args[1], min(args[2], 128)), f"fd {descriptor}")
        return _descriptor(descriptor)
    if name in _PATH_CALLS:
        return "path", _path(_string(args[0])), ""
    if name in _PATH_AT_CALLS:
        return "path", _path(_string(args[1]), args[0] & 0xFFFFFFFF), ""
    if name in _POLL_CALLS and args[1]:
        return _descriptor(unpack("=i", _memory(args[0], 4) or b"\xff" * 4)[0] & 0xFFFFFFFF)
    if name == "clock_nanosleep" and args[1] & 1:  # until a point in time (TIMER_ABSTIME), not for a duration
        return "timer", "", ""
    if name in _TIMESPEC_AT:
        return "timer", "", _seconds(name, args[_TIMESPEC_AT[name]])
    if name in ("wait4", "waitid"):
        return "child", f"pid {args[0 if name == 'wait4' else 1] & 0xFFFFFFFF}", ""
    return ("lock", "", "") if name == "futex" else ("other", "", "")


def _descriptor(descriptor: int) -> Tuple[str, str, str]:
    """Kind and name of an open descriptor, from its link in ``/proc/self/fd``."""
    detail = f"fd {descriptor}"
    try:
        target = _readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return "other", "", detail
    if target.startswith("socket:"):
        return "peer", _peer(descriptor) or target, detail
    if target.startswith("pipe:"):
        return "pipe", target, detail
    return ("path" if target.startswith("/") else "other"), target, detail


def _peer(descriptor: int) -> str:
    """``host:port`` of a connected socket, or its own address, or ''.

    A socket object over the same descriptor, given up again without closing it. With a default
    timeout set, its constructor would make the user's socket non-blocking: then we don't look.
    """
    import _socket

    if _socket.getdefaulttimeout() is not None:
        return ""
    try:
        view = _socket.socket(fileno=descriptor)
    except OSError:
        return ""
    try:
        return _printed(view.getpeername())
    except OSError:
        return ""
    finally:
        view.detach()


def _printed(address: object) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    if isinstance(address, bytes):
        address = "@" + address.lstrip(b"\0").decode("utf-8", "replace")
    return f"unix:{address}" if address else ""


def _address(raw: bytes, detail: str) -> Tuple[str, str, str]:
    """The peer in a ``struct sockaddr`` (IPv4, IPv6, unix)."""
    family = int.from_bytes(raw[:2], "little") if len(raw) >= 2 else 0
    if family == 2 and len(raw) >= 8:
        return "peer", ".".join(str(byte) for byte in raw[4:8]) + f":{int.from_bytes(raw[2:4], 'big')}", detail
    if family == 10 and len(raw) >= 24:
        import _socket

        host = _socket.inet_ntop(_socket.AF_INET6, raw[8:24])
        return "peer", f"[{host}]:{int.from_bytes(raw[2:4], 'big')}", detail
    if family == 1:
        return "peer", "unix:" + raw[2:].split(b"\0")[0].decode("utf-8", "replace"), detail
    return "peer", "", detail


def _seconds(name: str, at: int) -> str:
    raw = _memory(at, 16) if at else b""
    if len(raw) < 16:
        return ""
    whole, part = unpack("=qq", raw)
    return f"{whole + part / (1e6 if name == 'select' else 1e9):.3f} s"


def _path(name: str, directory: int = 0xFFFFFF9C) -> str:
    """Absolute form of a path argument; ``directory`` is the ``dirfd`` (AT_FDCWD by default)."""
    if name.startswith("/") or not name:
        return name
    base = "/proc/self/cwd" if directory == 0xFFFFFF9C else f"/proc/self/fd/{directory}"
    try:
        return os.path.join(_readlink(base), name)
    except OSError:
        return name


def _string(at: int) -> str:
    """NUL-terminated string at an address; shortened reads where the page ends."""
    raw = _memory(at, _PATH_BYTES) or _memory(at, 4096 - at % 4096)
    return raw.split(b"\0")[0].decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()


def _memory(at: int, length: int) -> bytes:
    """Bytes of our own memory through ``/proc/self/mem``: a bad address is an error there, not a SIGSEGV."""
    try:
        descriptor = _open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return _pread(descriptor, length, at)
    except (OSError, OverflowError):
        return b""
    finally:
        _close(descriptor)
