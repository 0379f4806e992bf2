"""The lines of strace: their grammar, and their stamps as one clock."""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = rb" *(?:(\d{1,10}) +)??(?:(\d\d):(\d\d):(\d\d)(?:\.(\d{6,9}))?|(\d{1,10})\.(\d{6,9}))? ?"
LINE = re.compile(PREFIX + rb"((?:\w+\(|<\.\.\. |\+\+\+ |--- |\?\?\?\?).*)")
WAITED = re.compile(
    PREFIX + rb"epoll_p?wait\((\d{1,9})[^\"]*, (-?\d{1,10})(?:, NULL, 8)?\) += \d{1,9} <(\d{1,8})\.(\d{6,9})>"
)
"""A whole wait, the line that matters most: read by one match, in a third of the time."""
CALL = re.compile(rb"(\w+)\((.*)\) += (.*?)(?: <(\d{1,8})\.(\d{6,9})>)?$", re.DOTALL)
RESUMED = re.compile(rb"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
CUT_SHORT = (b"<unfinished ...>", b"<detached ...>")
RESTARTED = re.compile(rb"restart_syscall\(<\.\.\. resuming interrupted (\w+) \.\.\.>")
BRACKETS = re.compile(rb"^\[pid +(\d{1,10})\]", re.MULTILINE)
DURATION = re.compile(rb" <\d{1,8}\.\d{6,9}>$")
ATTACHED = re.compile(rb"strace: Process (\d{1,10}) attached")
ZERO_TIMES = ("{tv_sec=0, tv_nsec=0}", "{tv_sec=0, tv_usec=0}")
DAY_NS = 86_400 * 10**9


@dataclass(slots=True)
class Parsed:
    """A whole call.  Times in ns; `duration_ns` is None without `-T`."""

    name: str
    arguments: str
    result: str
    start_ns: int
    duration_ns: int | None


def is_line(line: bytes) -> bool:
    found = LINE.fullmatch(BRACKETS.sub(rb"\1", line))
    if not found:
        return line.startswith(b"strace: ")
    text = found[8]
    return bool(CALL.match(text) or text.endswith(CUT_SHORT) or RESUMED.match(text) or text[:4] in (b"+++ ", b"--- "))


class Clock:
    """The stamps of a trace as one clock, in ns."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.absolute = False
        """Whether a line's stamp can be skipped: it neither counts from the line before, nor is too coarse."""
        self.coarse = False
        """A line had no stamp, or one of whole seconds."""
        self._relative: bool | None = None
        self._day_ns = self._time_of_day_ns = 0

    def move(self, line: re.Match[bytes]) -> None:
        """Move to the stamp of a line."""
        if line[6] is not None:
            self._unix(int(line[6]) * 10**9 + fraction_ns(line[7]))
        elif line[2] is not None:
            self._time_of_day((int(line[2]) * 60 + int(line[3])) * 60 + int(line[4]), line[5])
        else:
            self.coarse = True
        self.absolute = not self._relative and not self.coarse

    def _unix(self, stamp_ns: int) -> None:
        if self._relative is None:
            self._relative = stamp_ns < DAY_NS  # -r: the first is 0, and -ttt counts from 1970
        self.now_ns = self.now_ns + stamp_ns if self._relative else stamp_ns

    def _time_of_day(self, seconds: int, fraction: bytes | None) -> None:
        self.coarse |= fraction is None
        time_ns = seconds * 10**9 + (fraction_ns(fraction) if fraction else 0)
        if time_ns < self._time_of_day_ns - DAY_NS // 2:
            self._day_ns += DAY_NS  # past midnight
        self._time_of_day_ns = time_ns
        self.now_ns = self._day_ns + time_ns


def has_durations(head: bytes) -> bool:
    """Whether strace ran with -T: at least half of the finished calls say how long they took."""
    finished = [line for line in head.splitlines() if b") = " in line or b")  = " in line]
    return 2 * sum(line.endswith(b">") and DURATION.search(line) is not None for line in finished) >= len(finished) > 0


def parsed(text: bytes, start_ns: int) -> Parsed | None:
    found = CALL.match(text)
    if not found:
        return None
    duration_ns = int(found[4]) * 10**9 + fraction_ns(found[5]) if found[4] else None
    return Parsed(found[1].decode(), text_of(found[2]), text_of(found[3]), start_ns, duration_ns)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def fraction_ns(digits: bytes) -> int:
    return int(digits.ljust(9, b"0"))


def polls(name: str, arguments: str) -> bool:
    """Whether a wait's timeout is zero."""
    if name in ("epoll_wait", "poll", "epoll_wait_old"):
        return arguments.endswith(", 0")
    if name == "epoll_pwait":
        return ", 0, NULL" in arguments
    return arguments.endswith(ZERO_TIMES) or any(f"{zero}, NULL" in arguments for zero in ZERO_TIMES)
