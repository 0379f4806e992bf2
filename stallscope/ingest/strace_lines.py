"""The lines of strace: their grammar, and their stamps as one clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from stallscope.ingest.calls import BIRTHS, WAITS, one_of
from stallscope.ingest.descriptors import CHANGES, MAKERS
from stallscope.ingest.stops import stops

STAMP = rb"(\d\d:\d\d:\d\d(?:\.\d{6,9})?|\d{1,10}\.\d{6,9})"
LINE = re.compile(
    rb" *(?:(?:\[pid +)?(\d{1,10})\]? +)??(?:" + STAMP + rb" )?((?:\w+\(|<\.\.\. |\+\+\+ |--- |\?\?\?\?).*)"
)
"""Thread, stamp and the rest."""
TIMED_CALL = re.compile(rb"(\w+)\((.*)\) += (.*) <(\d{1,8})\.(\d{6,9})>$", re.DOTALL)
CALL = re.compile(rb"(\w+)\((.*)\) += (.*)$()()", re.DOTALL)
"""The same without -T: one pattern for both would be three times slower."""
RESUMED = re.compile(rb"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
CUT_SHORT = (b"<unfinished ...>", b"<detached ...>")
RESTARTED = re.compile(rb"restart_syscall\(<\.\.\. resuming interrupted (\w+) \.\.\.>")
DURATION = re.compile(rb" <\d{1,8}\.\d{6,9}>$")
ATTACHED = re.compile(rb"strace: Process (\d{1,10}) attached")
FRAME = b" > "
"""A line that begins so is of a call's stack (-k)."""
STAMP_INSIDE = re.compile(rb"\.\d{6,9} \w+\(")
QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
THREADS = re.compile(rb"\n(?:\[pid +)?(\d{1,10})\]? ")

_WHO = (rb"(\d{1,10}) +", rb"\[pid +(\d{1,10})\] ", rb"()")
_WHEN = (rb"(\d{10}\.\d{6})", rb"(\d\d:\d\d:\d\d\.\d{6})")
_PREFIXES = [who + when + b" " for who in _WHO for when in _WHEN]
_ANY_PREFIX = rb"(?:(?:\[pid +)?(\d{1,10})\]? +)?(\d{10}\.\d{6,9}|\d\d:\d\d:\d\d\.\d{6,9}) "
_TIMED = rb"(?<= <\d\.\d{6}>\n)|(?<= <\d\.\d{9}>\n)"
_PROGRAMS = {*WAITS, *BIRTHS, "execve", "restart_syscall"} - {"poll", "ppoll"}
_DESCRIPTORS = {*MAKERS, *CHANGES, "close"} - {"fcntl"}
_POLL = rb"p?poll\((?!\[\{[^{\n]*\}\], 1, )"
"""poll() tells nothing where it waits for one descriptor only."""
_FCNTL = rb"|fcntl\([^\n]*(?:DUPFD|<unf)"

WAITED, MADE, CLOSED = 6, 10, 11
"""The last group of a match of `scanner` (`Match.lastindex`)."""


def scanner(head: bytes) -> re.Pattern[bytes]:
    """A pattern that stops at lines of calls that tell something, and at all that is no whole line.

    Groups: where the line begins, thread, stamp; of a wait descriptor, `0` for a timeout of zero, and seconds; of a
    call that makes a descriptor name, arguments, result and what follows it; of close() the descriptor; and any other
    line that tells something.  In text that names files and peers itself (-yy) no descriptor need be followed.

    What begins the lines of `head` is looked for at the begin of all: a pattern for every kind took a quarter longer.
    """
    if NAMED.search(head):
        return _scan(one_of(_PROGRAMS), _POLL, b"p?poll ", _prefix(head))
    return _scan(one_of(_PROGRAMS | _DESCRIPTORS), _POLL + _FCNTL, b"fcntl |p?poll ", _prefix(head))


def _prefix(head: bytes) -> bytes:
    """What nearly all lines of a text begin with."""
    lines = [line for line in head.splitlines()[:-1] if LINE.fullmatch(line)]
    for prefix in _PREFIXES:
        if 50 * sum(re.match(prefix, line) is not None for line in lines) > 49 * len(lines):
            return prefix
    return _ANY_PREFIX


@cache
def _scan(telling: bytes, some: bytes, resumed: bytes, prefix: bytes) -> re.Pattern[bytes]:
    return stops(
        # What neither begins nor ends an iteration, nor changes a descriptor, is passed over …
        FRAME + rb"[^\n]*+\n|" + re.sub(rb"\((?!\?)", b"(?:", prefix) + rb"(?:"
        rb"(?!" + telling + rb"|" + some + rb")\w++\([^\n]*+\n(?:" + _TIMED + rb"|(?<=<unfinished \.\.\.>\n))"
        rb"|<\.\.\. (?!" + telling.replace(b"\\(", b" ") + rb"|" + resumed + rb")\w++ resumed>[^\n]*+\n"
        rb"(?:" + _TIMED + rb"))",
        # … and what comes by the thousand is read at once.
        rb"()" + prefix + rb"(?:"
        rb'epoll_p?wait\((\d{1,9}+)(?:<[^>\n]*+>)?, (?:\[[^\n"]*\]|NULL|0x\w++), \d{1,10}+, (?:(0)|-?\d{1,10})'
        rb"(?:, NULL, 8)?\) ++= \d{1,9}+ <(\d{1,8}+\.\d{6,9}+)>|"
        rb"(" + one_of(MAKERS).removesuffix(b"\\(") + rb")\(([^\n]*)\) ++= (-?\d{1,9}+)([^\n]*) <\d{1,8}\.\d{6,9}>|"
        rb"close\((\d{1,9}+)[^\n]*\) ++= 0 <\d{1,8}+\.\d{6,9}+>)\n",
    )  # fmt: skip


NAMED = re.compile(rb"<(?:TCP|UDP|UNIX)[A-Zv6-]*:\[")
EVERY_LINE = re.compile(rb"([^\n]+)\n")
DIGEST = re.compile(
    rb" *(?:(?:\[pid +)?(\d{1,10})\]? +)?(?:" + STAMP + rb" )?"
    rb"(?:(\w+)\((.*)\) += .* <(\d{1,8})\.(\d{6,9})>$|(.+))"
)
"""Groups: thread, stamp; of a whole call name, arguments, seconds and fraction; and the rest of any other line."""
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
    found = LINE.fullmatch(line)
    if not found:
        return line.startswith(b"strace: ")
    text = found[3]
    return bool(CALL.match(text) or text.endswith(CUT_SHORT) or RESUMED.match(text) or text[:4] in (b"+++ ", b"--- "))


class Clock:
    """The stamps of a trace as one clock, in ns."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.coarse = False
        """A line had no stamp, or one of whole seconds."""
        self.relative: bool | None = None
        """Each stamp counts from the line before (-r)."""
        self._day_ns = self._time_of_day_ns = 0

    def move(self, stamp: bytes | None) -> int:
        """Move to the stamp of a line; returns the time."""
        if stamp is None:
            self.coarse = True
        elif len(stamp) == 17:  # of -ttt, the common one
            self.now_ns = int(stamp.replace(b".", b"")) * 1000
            self.relative = self.relative or False
        elif stamp[2] == 58:  # a colon
            self._time_of_day(stamp)
        else:
            self._seconds(stamp)
        return self.now_ns

    def back_at(self, now_ns: int) -> Clock:
        """A clock of the same kind that shows an earlier moment."""
        other = Clock()
        other.now_ns, other.relative = now_ns, self.relative
        other._day_ns, other._time_of_day_ns = now_ns - now_ns % DAY_NS, now_ns % DAY_NS
        return other

    def _seconds(self, stamp: bytes) -> None:
        stamp_ns = seconds_ns(stamp)
        if self.relative is None:
            self.relative = stamp_ns < DAY_NS  # -r: the first is 0, and -ttt counts from 1970
        self.now_ns = self.now_ns + stamp_ns if self.relative else stamp_ns

    def _time_of_day(self, stamp: bytes) -> None:
        seconds = (int(stamp[:2]) * 60 + int(stamp[3:5])) * 60 + int(stamp[6:8])
        self.coarse |= len(stamp) == 8
        time_ns = seconds * 10**9 + (fraction_ns(stamp[9:]) if len(stamp) > 8 else 0)
        if time_ns < self._time_of_day_ns - DAY_NS // 2:
            self._day_ns += DAY_NS  # past midnight
        self._time_of_day_ns = time_ns
        self.now_ns = self._day_ns + time_ns


def has_durations(head: bytes) -> bool:
    """Whether strace ran with -T: at least half of the finished calls say how long they took."""
    finished = [line for line in head.splitlines() if b") = " in line or b")  = " in line]
    return 2 * sum(line.endswith(b">") and DURATION.search(line) is not None for line in finished) >= len(finished) > 0


def has_absolute_stamps(head: bytes) -> bool:
    """Whether lines may be passed over: no stamp counts from the line before, as with -r."""
    stamp = next((found[2] for line in head.splitlines() if (found := LINE.fullmatch(line)) and found[2]), b"")
    return len(stamp) > 8 and (stamp[2] == 58 or stamp.index(b".") == 10)


def parsed(text: bytes, start_ns: int) -> Parsed | None:
    found = TIMED_CALL.match(text) or CALL.match(text)
    if not found:
        return None
    duration_ns = int(found[4]) * 10**9 + fraction_ns(found[5]) if found[4] else None
    return Parsed(found[1].decode(), text_of(found[2]), text_of(found[3]), start_ns, duration_ns)


def is_two_lines(text: bytes) -> bool:
    """Whether a line has another's stamp inside it."""
    return STAMP_INSIDE.search(text) is not None and STAMP_INSIDE.search(QUOTED.sub(b"", text)) is not None


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def seconds_ns(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    return int(whole) * 10**9 + fraction_ns(fraction)


def fraction_ns(digits: bytes) -> int:
    return int(digits.ljust(9, b"0"))


def polls(name: str, arguments: str) -> bool:
    """Whether a wait's timeout is zero."""
    if name in ("epoll_wait", "poll", "epoll_wait_old"):
        return arguments.endswith(", 0")
    if name == "epoll_pwait":
        return ", 0, NULL" in arguments
    return arguments.endswith(ZERO_TIMES) or any(f"{zero}, NULL" in arguments for zero in ZERO_TIMES)
