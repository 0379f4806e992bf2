"""`perf script` of the tracepoints `raw_syscalls:*` or `syscalls:*`.

Form: `program tid [cpu] seconds: event: fields`, captured with Linux 6.1.  The tracepoints hold numbers only: no path
and no peer, so a call's resource is its descriptor.  raw_syscalls names calls by their number on x86-64.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stallscope.errors import UnreadableInput
from stallscope.ingest.calls import POLL_WAITS, WAITS, describe
from stallscope.ingest.rebuild import LINES_KEPT, POLL, Rebuild, Thread
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_HANDLERS, unread
from stallscope.recording.nouns import Call, Missing, Recording

EVENT = re.compile(
    rb" *(\S.{0,31}?) +(?:\d{1,10}/)?(\d{1,10}) +\[\d{1,5}\] +(\d{1,10})\.(\d{6,9}): +(?:"
    rb"raw_syscalls:sys_(?:enter: NR (\d{1,4}) \(([0-9a-f, ]*)\)|exit: NR (\d{1,4}) = (-?\d{1,20}))|"
    rb"syscalls:sys_(?:enter_(\w+): ?(.*)|exit_(\w+): (0x[0-9a-f]{1,16}))|((?!raw_syscalls:|syscalls:)\w+:\w+):.*)"
)
TIMEOUT_AT = {"epoll_wait": 3, "epoll_pwait": 3, "poll": 2}
NAMES = {
    0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 7: "poll", 8: "lseek",
    16: "ioctl", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 21: "access", 22: "pipe", 23: "select",
    32: "dup", 33: "dup2", 35: "nanosleep", 40: "sendfile", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom",
    46: "sendmsg", 47: "recvmsg", 56: "clone", 57: "fork", 58: "vfork", 59: "execve", 61: "wait4", 72: "fcntl",
    73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate", 78: "getdents", 80: "chdir",
    82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 89: "readlink", 162: "sync", 202: "futex", 217: "getdents64",
    230: "clock_nanosleep", 232: "epoll_wait", 233: "epoll_ctl", 247: "waitid", 257: "openat", 262: "newfstatat",
    263: "unlinkat", 264: "renameat", 270: "pselect6", 271: "ppoll", 275: "splice", 277: "sync_file_range",
    281: "epoll_pwait", 285: "fallocate", 288: "accept4", 295: "preadv", 296: "pwritev", 299: "recvmmsg",
    306: "syncfs", 307: "sendmmsg", 316: "renameat2", 326: "copy_file_range", 332: "statx", 435: "clone3",
    437: "openat2", 441: "epoll_pwait2", 9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 25: "mremap",
    28: "madvise", 24: "sched_yield", 34: "pause", 39: "getpid", 318: "getrandom",
}  # fmt: skip
"""System calls by number on x86-64, from the kernel's table (arch/x86/entry/syscalls/syscall_64.tbl)."""
OTHER_MACHINE = re.compile(r"^# arch : (?!x86_64|amd64)(\S+)", re.MULTILINE)
NO_NAMES = Missing(
    "paths and peers", "the tracepoints hold descriptors and pointers only; use perf trace or strace -yy"
)
NO_CPU = Missing(
    "causes between calls", "these tracepoints show calls only, not CPU time, run queue or locks in user space"
)
SCHEDULER = Missing("run-queue delay", "the scheduler's events in this file are not read")
FAILED = 1 << 63


def recognises(head: str) -> bool:
    return re.search(r"^ *\S.{0,31}? +\d+ +\[\d+\] +\d+\.\d+: +(?:raw_)?syscalls:sys_e", head, re.MULTILINE) is not None


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that waits for events again and again."""
    if machine := OTHER_MACHINE.search(source.head.decode("utf-8", "replace")):
        raise UnreadableInput(
            f"{source.name} was recorded on {machine[1]}, whose call numbers stallscope does not know: record "
            "'syscalls:*' instead of 'raw_syscalls:*'."
        )
    reader = Reader(threshold_ns)
    for chunk in source.chunks():
        reader.take(chunk)
    missing = [NO_HANDLERS, NO_NAMES, NO_CPU, *[SCHEDULER] * reader.scheduled]
    return reader.rebuild.recording(source, "perf-script", reader.now_ns, missing, unread(reader.unread))


class Reader:
    """The state of one pass."""

    def __init__(self, threshold_ns: int) -> None:
        self.rebuild = Rebuild(threshold_ns, _digest)
        self.threads: dict[bytes, Thread] = {}
        self.begun: dict[Thread, tuple[int, str, str, bool]] = {}
        """Calls in progress: when, name, arguments, and whether it is the loop's wait."""
        self.now_ns = 0
        self.unread = 0
        self.scheduled = False

    def take(self, chunk: bytes) -> None:
        for line in chunk.split(b"\n"):
            found = EVENT.fullmatch(line)
            if found:
                self._event(found)
            elif line.strip() and line[:1] not in b"#\t":
                self._torn()

    def _torn(self) -> None:
        """A line that may have hidden a wait: nothing in progress can be timed any more."""
        self.unread += 1
        for thread in self.threads.values():
            thread.forget_iteration()

    def _event(self, found: re.Match[bytes]) -> None:
        if found[13]:
            self.scheduled |= found[13].startswith(b"sched:")
            return
        thread = self.threads.get(found[2]) or self._thread(found[2], found[1])
        at_ns = self.now_ns = int(found[3]) * 10**9 + int(found[4].ljust(9, b"0"))
        if found[5]:
            number = int(found[5])
            self._enter(thread, at_ns, NAMES.get(number) or f"call {number}", found[6].decode(), 16)
        elif found[9]:
            self._enter(thread, at_ns, found[9].decode(), found[10].decode("utf-8", "replace"), 0)
        else:
            name = found[11].decode() if found[11] else NAMES.get(int(found[7])) or f"call {int(found[7])}"
            self._exit(thread, at_ns, name)

    def _thread(self, token: bytes, program: bytes) -> Thread:
        thread = self.threads[token] = self.rebuild.thread(int(token))
        thread.image.program = program.decode("utf-8", "replace")
        return thread

    def _enter(self, thread: Thread, at_ns: int, name: str, arguments: str, base: int) -> None:
        if thread.first_ns is None:
            thread.first_ns = at_ns
        values = _numbers(arguments, base)
        if name in WAITS and len(values) < 2:
            self._torn()
            return
        text = ", ".join(map(str, values))
        waits = (
            bool(values) and name in WAITS and _several(name, values) and thread.enter_wait(_key(name, values), at_ns)
        )
        self.begun[thread] = at_ns, name, text, waits

    def _exit(self, thread: Thread, at_ns: int, name: str) -> None:
        begun = self.begun.pop(thread, None)
        if begun is None or begun[1] != name:  # it began before the trace, or its other half was lost
            thread.forget_iteration()
            return
        start_ns, _, text, waits = begun
        if waits:
            position = TIMEOUT_AT.get(name)
            thread.leave_wait(at_ns, position is not None and text.split(", ")[position : position + 1] == ["0"])
        elif thread.returned_ns is not None and len(thread.lines) < LINES_KEPT:
            if at_ns - start_ns >= 1_000_000:
                thread.call(start_ns, at_ns - start_ns, describe(name, text, thread.image.descriptors))
            else:
                thread.lines.append((at_ns - start_ns, name, text))


def _key(name: str, values: list[int]) -> int:
    return POLL if name in POLL_WAITS else values[0] & 0x7FFFFFFF


def _several(name: str, values: list[int]) -> bool:
    """poll() of one descriptor is a client's wait for its answer."""
    return name not in ("poll", "ppoll") or (len(values) > 1 and values[1] > 1)


def _numbers(arguments: str, base: int) -> list[int]:
    """The arguments as signed numbers: `3, 7ffe…` of raw_syscalls, or `fd: 0x3, …` of syscalls."""
    found = re.findall(r"[0-9a-f]{1,16}", arguments) if base else re.findall(r": (?:0x)?([0-9a-f]{1,16})\b", arguments)
    values = [int(text, 16) for text in found]
    return [value - (1 << 64) if value >= FAILED else value for value in values]


def _digest(thread: Thread, lines: list[tuple[int, str, str]]) -> Iterator[tuple[int, Call]]:
    for duration_ns, name, text in lines:
        yield duration_ns, describe(name, text, thread.image.descriptors)
