"""`perf trace -s`: for each thread, a table of its calls with count, total, shortest and longest time.

There is no iteration in it, and no stall mode can be told.  But a call in a thread that waits by epoll is made inside
an iteration, so the longest of each kind is a stall of at least that length; how many more there were is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from stallscope.ingest.calls import EPOLL_WAITS
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_HANDLERS, NO_ITERATIONS, loop_of, ms, plural, process_of, recording_of, unread
from stallscope.recording.nouns import Call, Missing, Recording, Stall, TimedCall

THREAD = re.compile(r" (\S.{0,15}?) \((\d{1,10})\), \d+ events?, +[\d.]+%\s*$")
COLUMNS = re.compile(r"^ +syscall +calls +errors +total +min +avg +max", re.MULTILINE)
CALL = re.compile(r"^ *[\d.?]+ \([^)\n]*\): .*\) += ", re.MULTILINE)
ROW = re.compile(
    r"\s+([a-z_]\w*)\s+(\d{1,12})\s+(?:(\d{1,12})\s+)?(\d{1,12}\.\d{3})\s+(\d{1,12}\.\d{3})\s+(\d{1,12}\.\d{3})\s+(\d{1,12}\.\d{3})"
    r"\s+[\d.]+%\s*$"
)
TORN_ROW = re.compile(r"   [a-z]\w+ +\d")
LOWER_BOUND = Missing(
    "stall lengths and counts", "perf trace -s keeps sums: each call's longest is known, not the others"
)
NO_NAMES = Missing("paths and peers", "perf trace -s sums over all of them")


@dataclass(slots=True)
class Table:
    """One thread's: call -> (calls, total ns, longest ns)."""

    program: str
    tid: int
    calls: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def waits(self) -> int:
        return sum(self.calls[name][0] for name in EPOLL_WAITS if name in self.calls)


def recognises(head: str) -> bool:
    """Sums alone: behind a trace (-S) they are the trace's."""
    before, summary, _ = head.partition("Summary of events")
    return bool(summary) and COLUMNS.search(head) is not None and not CALL.search(before)


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that waits by epoll, with the longest call of each kind as a stall."""
    tables: list[Table] = []
    bad = 0
    for line in source.lines():
        if thread := THREAD.match(line):
            tables.append(Table(thread[1], int(thread[2])))
        elif (row := ROW.match(line)) and tables:
            tables[-1].calls[row[1]] = int(row[2]), _ns(row[4]), _ns(row[7])
        elif TORN_ROW.match(line):
            bad += 1
    loops = dict(enumerate((table for table in tables if table.waits), 1))
    return recording_of(
        source,
        "perf-trace-summary",
        threshold_ns,
        loops=[loop_of(number, table.tid, "epoll", f"thread {table.tid}") for number, table in loops.items()],
        processes=[process_of(number, table.tid, table.program) for number, table in loops.items()],
        stalls=[stall for number, table in loops.items() for stall in _stalls(number, table, threshold_ns)],
        missing=[NO_ITERATIONS, LOWER_BOUND, NO_NAMES, NO_HANDLERS],
        notes=[*(note for table in loops.values() for note in _notes(table, threshold_ns)), *unread(bad)],
    )


def _ns(milliseconds: str) -> int:
    return round(float(milliseconds) * 1e6)


def _stalls(number: int, table: Table, threshold_ns: int) -> Iterator[Stall]:
    for name, (_, _, longest_ns) in table.calls.items():
        if longest_ns >= threshold_ns and name not in EPOLL_WAITS:
            yield Stall(number, 0, longest_ns, calls=(TimedCall(0, longest_ns, Call(name)),))


def _notes(table: Table, threshold_ns: int) -> Iterator[str]:
    idle_ns = sum(table.calls[name][1] for name in EPOLL_WAITS if name in table.calls)
    yield f"thread {table.tid}: {plural(table.waits, 'wait')} for events took {ms(idle_ns)}, which is idle time"
    for name, (calls, total_ns, longest_ns) in table.calls.items():
        if longest_ns >= threshold_ns and name not in EPOLL_WAITS:
            yield f"thread {table.tid}: {name}, {plural(calls, 'call')}, {ms(total_ns)}, the longest {ms(longest_ns)}"
