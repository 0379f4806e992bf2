"""bpftrace's `hist()` and `lhist()` maps, as text and as JSON (`-f json`).

A bpftrace map names no unit; it is taken from the map's name (`@usecs`, `@latency_ms`, `@ns`), and a map without one
is left out: its durations would be made up.  Suffixes are powers of 1024 (`[1K, 2K)` is 1024 to 2047).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from stallscope.errors import UnreadableInput
from stallscope.ingest.buckets import Cells, coarse
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import (
    NO_CALLS,
    NO_HANDLERS,
    NO_STALLS,
    NO_WALL,
    plural,
    process_of,
    recording_of,
    unread,
)
from stallscope.recording.nouns import CoarseHistogram, Loop, Recording

MAP = re.compile(r"(@\w*(?:\[[^\]]*\])?):\s*$")
NUMBER = r"(\d{1,19})([KMGTPE]?)"
ROW = re.compile(
    rf"(?:\[{NUMBER}(?:, (?:{NUMBER}|(\.\.\.)))?[\])]|(\(\.\.\.), -?\d+[KMGTPE]?[\])])\s+(\d{{1,18}}) \|[^|]*\|\s*$"
)
TORN_ROW = re.compile(r"[\[(][\d.]")
UNIT = re.compile(
    r"(?:^|[^a-z])(ns|nsecs?|nanos|nanoseconds|us|usecs?|micros|microseconds|ms|msecs?|millis|milliseconds)(?![a-z])"
)
UNIT_NS = {"n": 1, "u": 1_000, "mic": 1_000, "m": 1_000_000}
SHIFT = {suffix: 10 * power for power, suffix in enumerate(("", *"KMGTPE"))}

Row = tuple[int, "int | None", int]
"""Low edge, high edge (None: open), count; in the map's unit."""


@dataclass(slots=True)
class Table:
    """One print of a map."""

    rows: list[Row] = field(default_factory=list)
    whole: bool = True
    """No row of it is unread."""


def recognises(head: str) -> bool:
    lines = head.splitlines()
    return any(map(MAP.match, lines)) and any(map(ROW.match, lines))


def recognises_json(head: str) -> bool:
    return re.match(r'\s*\{"type": ?"', head) is not None and re.search(r'"type": ?"l?hist"', head) is not None


def read(source: Source, threshold_ns: int) -> Recording:
    """The maps of bpftrace's text output."""
    maps: dict[str, list[Table]] = {}
    table: Table | None = None
    bad = 0
    for line in source.lines():
        if name := MAP.match(line):
            table = Table()
            maps.setdefault(name[1], []).append(table)
        elif (row := ROW.match(line)) and table is not None:
            table.rows.extend(_row(*row.groups()))
        elif row or TORN_ROW.match(line):
            bad += 1
            if table is not None:
                table.whole = False
        else:
            table = None  # its end, or a heading that cannot be read: rows that follow are of no known map
    return _recording(source, threshold_ns, maps, bad)


def read_json(source: Source, threshold_ns: int) -> Recording:
    """The maps of bpftrace's JSON output: one object a line."""
    maps: dict[str, list[Table]] = {}
    bad = 0
    for line in source.lines():
        if not line.strip():
            continue
        try:
            for name, buckets in _json_maps(json.loads(line)):
                rows = [_json_row(bucket) for bucket in buckets if bucket.get("min", -1) >= 0]
                maps.setdefault(name, []).append(Table(rows))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            bad += 1
    return _recording(source, threshold_ns, maps, bad)


def _row(low: str | None, k: str, high: str | None, k2: str, open_: str | None, below: str | None, n: str) -> list[Row]:
    if below or low is None:
        return []  # below the first bucket: negative numbers, or what lhist() was told to ignore
    start = int(low) << SHIFT[k]
    if open_:
        return [(start, None, int(n))]
    return [(start, int(high) << SHIFT[k2] if high else start + 1, int(n))]


def _json_maps(message: Any) -> Iterator[tuple[str, list[Any]]]:
    if message["type"] not in ("hist", "lhist"):
        return
    for name, content in message["data"].items():
        if isinstance(content, dict):
            for key, buckets in content.items():
                yield f"{name}[{key}]", buckets
        else:
            yield name, content


def _json_row(bucket: dict[str, int]) -> Row:
    low, high, count = bucket["min"], bucket.get("max"), bucket["count"]
    if not all(type(number) is int and number >= 0 for number in (low, count)):
        raise ValueError(bucket)
    if high is not None and (type(high) is not int or high < low):
        raise ValueError(bucket)
    return low, None if high is None else high + 1, count


def _recording(source: Source, threshold_ns: int, maps: dict[str, list[Table]], bad: int) -> Recording:
    units = {name: unit for name in maps if (unit := _unit_ns(name))}
    if maps and not units:
        names = ", ".join(sorted(maps)[:3])
        raise UnreadableInput(
            f"{source.name}: the maps {names} do not say their unit, so their times would be guesses: "
            "name them by it, such as @usecs or @latency_ms, and record again."
        )
    loops = [
        Loop(number, number, 0, 0, "function", name, 0, 0, {}, None, _histogram(maps[name], unit_ns))
        for number, (name, unit_ns) in enumerate(units.items(), 1)
    ]
    notes = [f"{plural(len(maps) - len(units), 'map')} without a unit in the name left out"] * (len(units) < len(maps))
    if any(len(tables) > 1 for tables in maps.values()):
        notes.append("maps printed more than once were added up, or only the last was taken where none had shrunk")
    return recording_of(
        source,
        "bpftrace",
        threshold_ns,
        loops=loops,
        processes=[process_of(loop.id, 0, loop.name) for loop in loops],
        missing=[NO_STALLS, NO_CALLS, NO_HANDLERS, NO_WALL],
        notes=notes + unread(bad),
    )


def _unit_ns(name: str) -> int | None:
    """The unit that a map's name ends in, or speaks of."""
    found = UNIT.findall(re.sub(r"[\d_@]", " ", name.split("[")[0].lower()))
    if not found:
        return None
    unit = found[-1]
    return UNIT_NS["mic"] if unit.startswith("mic") else UNIT_NS[unit[0]]


def _histogram(tables: list[Table], unit_ns: int) -> CoarseHistogram:
    rows = _one_table(tables)
    cells: Cells = {}
    for low, high, count in rows:
        bucket = low * unit_ns, (max(2 * low, low + 1) if high is None else high) * unit_ns
        cells[bucket] = cells.get(bucket, 0) + count
    octaves = all(high >= 1.9 * low for low, high in cells if low >= 8 * unit_ns)
    return coarse(cells, per_octave=1 if octaves and not _is_linear(cells) else 4)


def _one_table(tables: list[Table]) -> Iterable[Row]:
    """Several prints of one map as one: the last, if every bucket only grew (a map that is never cleared), else all."""
    grew = all(_grew(before, after) for before, after in pairwise(tables))
    return tables[-1].rows if grew else [row for table in tables for row in table.rows]


def _grew(before: Table, after: Table) -> bool:
    """Whether every bucket did; one that is missing shrank, unless it may have been in a line that is unread."""
    counts = {row[:2]: row[2] for row in after.rows}
    return all(counts.get((low, high), -1 if after.whole else count) >= count for low, high, count in before.rows)


def _is_linear(cells: Cells) -> bool:
    """lhist(): all buckets (but the open last) of one width."""
    widths = {high - low for low, high in sorted(cells)[:-1]}
    return len(widths) == 1 and len(cells) > 2
