"""HdrHistogram logs (`.hlog`), jHiccup's among them, by the hdrhistogram package.

Values carry no unit.  The column Interval_Max does: it is the largest value in milliseconds, so the ratio of the two
tells the unit (10^6 for nanoseconds, what jHiccup and HistogramLogWriter use).
Log format: the class comment of org.HdrHistogram.HistogramLogReader.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from math import log10

from hdrh.histogram import HdrHistogram

from stallscope.agent.layout import bucket_of
from stallscope.errors import UnreadableInput
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_CALLS, NO_HANDLERS, NO_STALLS, process_of, recording_of, unread
from stallscope.recording.nouns import Loop, Missing, Recording

INTERVAL = re.compile(
    r"(?:Tag=([^,]{1,200}),)?(\d{1,12}\.\d{1,9}),(\d{1,9}\.\d{1,9}),(\d{1,12}\.\d{1,9}),([\w+/=]+)\s*$"
)
START = re.compile(r"#\[StartTime: (\d{1,12}\.\d{1,9})")
BASE = re.compile(r"#\[BaseTime: (\d{1,12}\.\d{1,9})")
UNITS_NS = {6: 1, 3: 1_000, 0: 1_000_000, -3: 1_000_000_000}
HICCUP_NOTE = (
    "jHiccup measures how late an idle thread of the same process wakes: pauses of the whole process (collector, "
    "scheduler), not iterations of a loop"
)


@dataclass(slots=True)
class Series:
    """What one tag recorded: counts by value in the log's own unit, and the wall time it spans, in s."""

    values: Counter[int] = field(default_factory=Counter)
    ratios: Counter[int] = field(default_factory=Counter)
    opened_s: float = float("inf")
    last_s: float = 0.0

    def add(self, start_s: float, length_s: float, max_ms: float, packed: str) -> None:
        """Raises whatever hdrhistogram raises for what it cannot decode."""
        histogram = HdrHistogram.decode(packed)
        # get_recorded_iterator() takes ten times as long.
        counted = {histogram.get_value_from_index(index): n for index, n in enumerate(histogram.counts) if n > 0}
        largest = histogram.get_max_value()
        if max_ms > 0 and largest > 0:
            self.ratios[round(log10(largest / max_ms))] += 1
        self.values.update(counted)
        self.opened_s = min(self.opened_s, start_s)
        self.last_s = max(self.last_s, start_s + length_s)


def recognises(head: str) -> bool:
    return (
        "#[Histogram log format version" in head
        or '"StartTimestamp","Interval_Length"' in head
        or (re.search(r"^(?:Tag=[^,]+,)?[\d.]+,[\d.]+,[\d.]+,HIST", head, re.MULTILINE) is not None)
    )


OVERLAPPING = Missing(
    "shares of wall time",
    "the values add up to more than the time recorded: they were corrected for coordinated omission, or overlap",
)


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each tag."""
    series: dict[str, Series] = {}
    bad = intervals = 0
    base_s, hiccup = 0.0, b"jHiccup" in source.head
    for line in source.lines():
        if found := INTERVAL.match(line):
            intervals += 1
            bad += not _add(series.setdefault(found[1] or "", Series()), found, base_s)
        elif origin := BASE.match(line) or START.match(line):
            base_s = float(origin[1])
        elif line.strip() and line[0] not in '#"':
            bad += 1
    if intervals and bad >= intervals and not any(one.values for one in series.values()):
        raise UnreadableInput(
            f"{source.name} holds histograms that hdrhistogram cannot decode (encodings V0 and V1 of 2015, or "
            "damage): convert it with HistogramLogProcessor, or record again."
        )
    return _recording(source, threshold_ns, {tag: one for tag, one in series.items() if one.values}, bad, hiccup)


def _add(series: Series, found: re.Match[str], base_s: float) -> bool:
    start_s = float(found[2])
    origin_s = base_s if start_s < base_s - 365 * 24 * 3600 else 0.0
    try:
        series.add(origin_s + start_s, float(found[3]), float(found[4]), found[5])
    except (
        Exception
    ):  # hdrhistogram lets all sorts out for damaged data: struct.error, zlib.error, IndexError, TypeError …
        return False
    return True


def _recording(source: Source, threshold_ns: int, series: dict[str, Series], bad: int, hiccup: bool) -> Recording:
    units = {tag: _unit_ns(one) for tag, one in series.items()}
    if series and not any(units.values()):
        raise UnreadableInput(
            f"{source.name} does not tell the unit of its values (Interval_Max should be in milliseconds), so their "
            "times would be guesses: write it with HistogramLogWriter's default ratio."
        )
    loops = [
        _loop(number, tag, series[tag], unit_ns, "jHiccup" if hiccup else "hlog")
        for number, (tag, unit_ns) in enumerate(((tag, unit) for tag, unit in units.items() if unit), 1)
    ]
    missing = [NO_STALLS, NO_CALLS, NO_HANDLERS]
    if any(loop.last_ns == loop.opened_ns for loop in loops):
        missing.append(OVERLAPPING)
    if hiccup:
        missing.append(Missing("iterations", "jHiccup times a thread of its own, not the loop"))
    return recording_of(
        source,
        "hlog",
        threshold_ns,
        loops=loops,
        processes=[process_of(loop.id, 0, loop.name, loop.opened_ns, loop.last_ns) for loop in loops],
        missing=missing,
        notes=[HICCUP_NOTE] * hiccup + unread(bad),
    )


def _unit_ns(series: Series) -> int | None:
    """The unit of the values, in ns; None when Interval_Max does not tell."""
    return UNITS_NS.get(series.ratios.most_common(1)[0][0]) if series.ratios else None


def _loop(number: int, tag: str, series: Series, unit_ns: int, kind: str) -> Loop:
    counts: Counter[int] = Counter()
    for value, count in series.values.items():
        counts[bucket_of(value * unit_ns)] += count
    opened_ns, last_ns = round(series.opened_s * 1e9), round(series.last_s * 1e9)
    if sum(value * unit_ns * count for value, count in series.values.items()) > last_ns - opened_ns:
        last_ns = opened_ns  # OVERLAPPING: no share of the wall time can be told from such values
    return Loop(number, number, 0, 0, kind, tag or kind, opened_ns, last_ns, dict(counts))
