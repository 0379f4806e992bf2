"""bcc's `funclatency`: one log2 histogram a function, in ns, us or ms, once or at intervals.

Form: funclatency_example.txt of bcc.  Row `lo -> hi` counts whole units from lo to hi, so it spans [lo, hi + 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stallscope.ingest.buckets import Cells, coarse
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import (
    NO_CALLS,
    NO_HANDLERS,
    NO_STALLS,
    NO_WALL,
    process_of,
    recording_of,
    unread,
)
from stallscope.recording.nouns import Loop, Recording

UNIT_NS = {"nsecs": 1, "usecs": 1_000, "msecs": 1_000_000}
HEADER = re.compile(r"^[ \t]*(nsecs|usecs|msecs) *: count +distribution *$", re.MULTILINE)
ROW = re.compile(r"\s*(\d{1,19}) -> (\d{1,19})\s*: (\d{1,18})\s*\|[^|]*\|\s*$")
TORN_ROW = re.compile(r"\s*\d+ ->")
TRACED = re.compile(r'Tracing (?:\d+ functions? for )?"?(.+?)"?\.\.\. Hit Ctrl-C')
FUNCTION = re.compile(r"Function = (.+?)(?: \[(\d{1,9})\])?\s*$")
CONTAINS_WAIT = (
    "each call of {} counts as an iteration, as funclatency timed it: if the function waits for events, as nginx's "
    "ngx_process_events_and_timers does, idle time is part of it, and only the gap between two modes tells"
)


class Tables:
    """The histograms of one file: those of one function under one heading are added up (intervals)."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, str, int, int], Cells] = {}
        self.traced = "traced function"
        self.headings = 0
        self.current: Cells | None = None
        self.function: tuple[str, int] | None = None
        """Whose the next histogram is, where there are several."""
        self.each_named = False
        self.unit_ns = 0
        self.unread = 0

    def take(self, line: str) -> None:
        if row := ROW.match(line):
            self._row(*map(int, row.groups()))
        elif header := HEADER.match(line):
            self._open(UNIT_NS[header[1]])
        elif function := FUNCTION.match(line):
            self.function = function[1], int(function[2] or 0)
            self.each_named, self.current = True, None
        elif traced := TRACED.match(line):
            self.traced, self.function, self.each_named, self.current = traced[1], None, False, None
            self.headings += 1
        elif TORN_ROW.match(line):
            self.unread += 1
        else:
            self.current = None  # the end of a histogram, or a heading that is torn: whose the next rows are is unknown

    def _open(self, unit_ns: int) -> None:
        if self.each_named and self.function is None:  # its name was torn
            self.current = None
            return
        name, pid = self.function or (self.traced, 0)
        self.function, self.unit_ns = None, unit_ns
        self.current = self.cells.setdefault((self.headings, name, pid, unit_ns), {})

    def _row(self, low: int, high: int, count: int) -> None:
        if self.current is None or not _octave(low, high):
            self.unread += 1
            return
        bucket = low * self.unit_ns, (high + 1) * self.unit_ns
        self.current[bucket] = self.current.get(bucket, 0) + count


def _octave(low: int, high: int) -> bool:
    """Whether a row is a whole octave, as all of funclatency's are: 0 -> 1, 2 -> 3, 4 -> 7 …"""
    return (low, high) == (0, 1) or (low >= 2 and low & (low - 1) == 0 and high == 2 * low - 1)


def recognises(head: str) -> bool:
    return HEADER.search(head) is not None and re.search(r"^[ \t]*\d+ -> \d+ *:", head, re.MULTILINE) is not None


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each function, with a coarse histogram."""
    tables = Tables()
    for line in source.lines():
        tables.take(line)
    loops = list(_loops(tables))
    names = sorted({loop.name for loop in loops})
    return recording_of(
        source,
        "funclatency",
        threshold_ns,
        loops=loops,
        processes=[process_of(loop.id, loop.pid, loop.name) for loop in loops],
        missing=[NO_STALLS, NO_CALLS, NO_HANDLERS, NO_WALL],
        notes=[CONTAINS_WAIT.format(", ".join(names[:3])), *unread(tables.unread)],
    )


def _loops(tables: Tables) -> Iterator[Loop]:
    for number, ((_, name, pid, _), cells) in enumerate(tables.cells.items(), 1):
        yield Loop(number, number, pid, pid, "function", name, 0, 0, {}, None, coarse(cells))
