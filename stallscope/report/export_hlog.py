"""Iterations as an HdrHistogram log (V1.3), an interval histogram a minute, in ns.

hdrhistogram encodes the histograms; the lines are written here, since its HistogramLogWriter knows no tags and cuts
Interval_Max to whole milliseconds: 0 where no iteration took one, and that column is all that tells the values' unit.
Form: the class comment of org.HdrHistogram.HistogramLogReader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stallscope.analysis.findings import Findings, LoopFindings
from stallscope.analysis.lengths import Lengths, lengths, percentile_histogram
from stallscope.recording.nouns import Interval, Loop, Stall
from stallscope.report.stall_parts import time_of_day

LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'


@dataclass(frozen=True, slots=True)
class _Line:
    """One interval of one loop."""

    from_ns: int
    to_ns: int
    tag: str
    held: Lengths


def render(findings: Findings) -> str:
    """The log; where several loops have iterations, each has a tag.  Stalls have their exact lengths, the rest of a
    bucket its middle."""
    held = sorted((one for one in findings.loops if one.iterations), key=lambda one: one.loop.id)
    lines = [line for one in held for line in _lines(one, findings, tagged=len(held) > 1)]
    ordered = sorted(lines, key=lambda line: (line.from_ns, line.tag))
    return "\n".join([*_head(findings), *(_row(line, findings.recording.started_ns) for line in ordered), ""])


def _head(findings: Findings) -> Iterator[str]:
    recording = findings.recording
    yield f"#[Iterations of event loops, in ns, exported by stallscope from {' '.join(recording.path.split())}]"
    yield "#[Histogram log format version 1.3]"
    if started := time_of_day(recording, recording.started_ns):
        yield f"#[BaseTime: {started.timestamp():.6f} (seconds since epoch)]"
        yield f"#[StartTime: {started.timestamp():.6f} (seconds since epoch), {started.isoformat(' ')}]"
    yield LEGEND


def _lines(one: LoopFindings, findings: Findings, *, tagged: bool) -> Iterator[_Line]:
    loop = one.loop
    tag = f"Tag=loop-{loop.id}-pid-{loop.pid}," if tagged else ""
    if len(loop.intervals) < 2:
        yield _Line(loop.opened_ns, loop.opened_ns + one.wall_ns, tag, one.held)
        return
    stalls = [stall for stall in findings.recording.stalls if stall.loop_id == loop.id]
    for interval in loop.intervals:
        yield _Line(interval.from_ns, interval.to_ns, tag, _held(loop, interval, stalls))


def _held(loop: Loop, interval: Interval, stalls: Iterable[Stall]) -> Lengths:
    """An iteration is counted where it ends; one still in progress, in the last interval."""
    last = interval is loop.intervals[-1]
    ends = ((stall.start_ns + stall.duration_ns, stall) for stall in stalls)
    own = [stall for end_ns, stall in ends if interval.from_ns < end_ns and (last or end_ns <= interval.to_ns)]
    return lengths(loop._replace(counts=interval.counts), own)


def _row(line: _Line, origin_ns: int) -> str:
    start_s, length_s = (line.from_ns - origin_ns) / 1e9, (line.to_ns - line.from_ns) / 1e9
    longest_ms = (line.held.longest_ns or 0) / 1e6
    packed = percentile_histogram(line.held.known).encode().decode()
    return f"{line.tag}{max(0.0, start_s):.3f},{length_s:.3f},{longest_ms:.6f},{packed}"
