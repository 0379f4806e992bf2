"""The recorded traces in the other shapes that their tools print, for the fuzzer."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone

Change = Callable[[bytes], bytes]

_STAMPED = re.compile(rb"^(\d+) +(\d{10})\.(\d{6}) ", re.MULTILINE)
_TOOK = re.compile(rb" <\d+\.\d{6}>$", re.MULTILINE)


def _stamps(shape: Callable[[re.Match[bytes]], bytes]) -> Change:
    return lambda data: _STAMPED.sub(shape, data)


def _time_of_day(found: re.Match[bytes]) -> bytes:
    moment = datetime.fromtimestamp(int(found[2]), timezone.utc)
    return b"%s %s.%s " % (found[1], moment.strftime("%H:%M:%S").encode(), found[3])


def _relative(data: bytes) -> bytes:
    before = [0]

    def shape(found: re.Match[bytes]) -> bytes:
        now = int(found[2] + found[3])
        since, before[0] = now - (before[0] or now), now
        return b"%s %6d.%06d " % (found[1], *divmod(max(since, 0), 10**6))

    return _STAMPED.sub(shape, data)


def _one_thread(data: bytes) -> bytes:
    """As the busiest thread's file of -ff has it: no numbers."""
    numbers = [found[1] for found in _STAMPED.finditer(data)]
    busiest = max(set(numbers), key=numbers.count, default=b"")
    lines = [line for line in data.split(b"\n") if line.startswith(busiest + b" ")]
    return b"\n".join(line[len(busiest) :].lstrip() for line in lines) + b"\n"


STRACE: dict[str, Change] = {
    "-ttt": lambda data: data,
    "-tt": _stamps(_time_of_day),
    "-r": _relative,
    "-t": _stamps(lambda found: _time_of_day(found)[: -len(found[3]) - 2] + b" "),
    "to a terminal": _stamps(lambda found: b"[pid %5s] %s.%s " % found.groups()),
    "ns": lambda data: _TOOK.sub(lambda took: took[0][:-1] + b"123>", _stamps(_with_ns)(data)),
    "-ff": _one_thread,
    "without -T": lambda data: _TOOK.sub(b"", data),
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
}
"""By the option of strace that makes it."""


def _with_ns(found: re.Match[bytes]) -> bytes:
    return b"%s %s.%s456 " % found.groups()


def variants(form: str, data: bytes) -> list[bytes]:
    """A recorded trace of a format, and the same in other shapes."""
    if form != "strace" or not _STAMPED.search(data):
        return [data]
    return [change(data) for change in STRACE.values()]


REFUSED = {
    "syscount": b"""Tracing syscalls, printing top 10... Ctrl+C to quit.
[09:39:04]
SYSCALL             COUNT
write               10739
wait4                1460
""",
    "offcputime": b"""Tracing off-CPU time (us) of all threads by kernel stack... Hit Ctrl-C to end.
^C
    schedule
    poll_schedule_timeout
    do_sys_poll
    python
        4036

    schedule
    io_schedule_timeout
    sys_read
    tar
        13
""",
    "strace-c": b"""% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.90    0.000026           2         9           mmap
 38.10    0.000016          16         1         1 read
------ ----------- ----------- --------- --------- ----------------
100.00    0.000042           4        10         1 total
""",
}
"""A short text of each kind that is refused, in the words of its tool's own heading."""
