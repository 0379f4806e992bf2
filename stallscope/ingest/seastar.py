"""Seastar's reactor-stall reports in a log: `Reactor stalled for 500 ms on shard 0.`, with a backtrace.

Seastar reports a stall while it lasts, and again each time it has doubled: such repeats are one stall.  Each length is
what the reactor had stalled for when it was reported, a lower bound.
Form: `cpu_stall_detector` in Seastar's src/core/reactor.cc, and Scylla's system log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from stallscope.ingest.log_stamps import SECOND_NS, stamp_ns
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_ITERATIONS, loop_of, plural, process_of, recording_of, unread
from stallscope.recording.nouns import Frame, Missing, Recording, Span, Stack, Stall

STALLED = re.compile(r"Reactor stalled for (\d{1,9}) ms on shard (\d{1,5})(?:, in scheduling group ([\w.]+))?\.?")
TORN = re.compile(r"Reactor stalled for")
ADDRESS = re.compile(r"(?:^|\s)((?:/?[\w./+-]+)\+)?(0x[0-9a-fA-F]{4,16})(?=\s|$)")
STACK_LINES = 60
LOWER_BOUND = Missing("stall lengths", "Seastar reports a stall while it lasts: each length is a lower bound")
NO_CALLS = Missing("calls and resources", "the reports hold a backtrace of addresses only")


@dataclass(slots=True)
class Report:
    """One report; `at_ns` is the log line's time, to the second in most logs."""

    shard: int
    at_ns: int
    stalled_ns: int
    frames: list[Frame] = field(default_factory=list)

    def repeats(self, earlier: Report) -> bool:
        """Whether this tells of the same stall as an earlier report of the same shard, some time later."""
        grown_ns = self.stalled_ns - earlier.stalled_ns
        return grown_ns > 0 and self.at_ns - earlier.at_ns <= grown_ns + SECOND_NS


def recognises(head: str) -> bool:
    return STALLED.search(head) is not None


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each shard."""
    log = Log()
    for line in source.lines():
        log.take(line)
    stalls = _merged(log.reports)
    numbers = {shard: number for number, shard in enumerate(sorted({stall.shard for stall in stalls}), 1)}
    span = (log.first_ns or 0, max(log.first_ns or 0, log.now_ns))
    notes = [f"{plural(len(log.reports), 'report')} told of {plural(len(stalls), 'stall')}: repeats were merged"]
    return recording_of(
        source,
        "seastar",
        threshold_ns,
        loops=[loop_of(number, 0, "seastar", f"shard {shard}", *span, process=1) for shard, number in numbers.items()],
        processes=[process_of(1, 0, "Seastar", *span)],
        stalls=[_stall(report, numbers[report.shard]) for report in stalls if report.stalled_ns >= threshold_ns],
        missing=[NO_ITERATIONS, LOWER_BOUND, NO_CALLS],
        notes=[*notes, *unread(log.torn)],
    )


class Log:
    """The reports of a log, in one pass."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.first_ns: int | None = None
        self.now_ns = 0
        self.torn = 0
        self._lines_left = 0

    def take(self, line: str) -> None:
        self.now_ns = stamp_ns(line) or self.now_ns
        self.first_ns = self.first_ns or self.now_ns or None
        if found := STALLED.search(line):
            self.reports.append(Report(int(found[2]), self.now_ns, int(found[1]) * 1_000_000))
            self._lines_left = STACK_LINES
            self._frames(line[found.end() :])
        elif TORN.search(line):
            self.torn += 1
        elif self._lines_left:
            self._lines_left = self._lines_left - 1 if self._frames(line) or "Backtrace" in line else 0

    def _frames(self, text: str) -> bool:
        """Add the addresses in a line to the report before; whether there were any."""
        found = [Frame((place or "").rstrip("+"), 0, address) for place, address in ADDRESS.findall(text)]
        frames = self.reports[-1].frames
        frames.extend(found[: STACK_LINES - len(frames)])
        return bool(found)


def _merged(reports: list[Report]) -> list[Report]:
    """One report a stall: the last, with the first backtrace that there was."""
    latest: dict[int, Report] = {}
    merged: list[Report] = []
    for report in reports:
        earlier = latest.get(report.shard)
        latest[report.shard] = report
        if earlier and report.repeats(earlier):
            report.frames = report.frames or earlier.frames
            merged = [kept for kept in merged if kept is not earlier]
        merged.append(report)
    return merged


def _stall(report: Report, number: int) -> Stall:
    start_ns = max(0, report.at_ns - report.stalled_ns)
    stack: Stack = tuple(report.frames)
    spans = (Span(start_ns, start_ns + report.stalled_ns, 1, stack, None, ""),) if stack else ()
    return Stall(number, start_ns, report.stalled_ns, spans=spans)
