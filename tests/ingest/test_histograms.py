"""Histograms that others printed: counts to the last one, units, intervals, and no guesses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from stallscope.agent.layout import bounds_ns
from stallscope.analysis.modes import Bins, find_modes
from stallscope.errors import UnreadableInput
from stallscope.ingest.recognise import ingest
from stallscope.recording.nouns import CoarseHistogram, Loop
from tests.ingest.expected import TRACES


def read(tmp_path: Path, text: str) -> tuple[Loop, ...]:
    path = tmp_path / "trace.txt"
    path.write_text(text)
    return ingest(path).loops


def coarse(loop: Loop) -> CoarseHistogram:
    assert loop.coarse is not None
    return loop.coarse


def funclatency(unit: str, *rows: tuple[int, int, int]) -> str:
    table = "".join(f"{low:10} -> {high:<10} : {count:<8} |***     |\n" for low, high, count in rows)
    return f"     {unit}               : count     distribution\n{table}\n"


@pytest.mark.parametrize(("unit", "unit_ns"), [("nsecs", 1), ("usecs", 1000), ("msecs", 1_000_000)])
def test_funclatency_in_each_unit(unit: str, unit_ns: int, tmp_path: Path) -> None:
    (loop,) = read(tmp_path, funclatency(unit, (0, 1, 5), (2, 3, 0), (4, 7, 2)))
    assert coarse(loop).edges_ns == (0, 2 * unit_ns, 4 * unit_ns, 8 * unit_ns)
    assert coarse(loop).counts == (5, 0, 2)


def test_funclatency_keeps_functions_apart_and_adds_up_intervals(tmp_path: Path) -> None:
    head = 'Tracing 2 functions for "srv:turn*"... Hit Ctrl-C to end.\n'
    interval = "\nFunction = turn_a [41]\n" + funclatency("usecs", (0, 1, 3)) + "Function = turn_b [41]\n"
    text = head + 2 * (interval + funclatency("usecs", (4, 7, 1)))
    loops = read(tmp_path, text)
    assert [(loop.name, loop.pid, coarse(loop).counts) for loop in loops] == [
        ("turn_a", 41, (6,)),
        ("turn_b", 41, (2,)),
    ]


def test_funclatency_counts_rows_that_are_no_octave_as_unread(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(funclatency("usecs", (0, 1, 3), (2, 9, 100), (4, 7, 1)) + "     8 -> 1")
    recording = ingest(path)
    assert coarse(recording.loops[0]).counts == (3, 0, 1)
    assert "2 lines could not be read and did not count" in recording.notes


def test_bpftrace_text_and_json_agree_on_a_histogram(tmp_path: Path) -> None:
    text = "@usecs: \n[0]    3 |@@  |\n[1]    1 |@   |\n[2, 4)   0 |    |\n[1K, 2K)    7 |@@@@|\n"
    counts = [{"min": 0, "max": 0, "count": 3}, {"min": 1, "max": 1, "count": 1}, {"min": 2, "max": 3, "count": 0}]
    message = {"type": "hist", "data": {"@usecs": [*counts, {"min": 1024, "max": 2047, "count": 7}]}}
    (from_text,), (from_json,) = read(tmp_path, text), read(tmp_path, json.dumps(message) + "\n")
    assert coarse(from_text) == coarse(from_json)
    assert coarse(from_text).edges_ns == (0, 1000, 2000, 4000, 1024_000, 2048_000)
    assert coarse(from_text).counts == (3, 1, 0, 0, 7)


def test_bpftrace_keyed_linear_map_with_an_open_bucket(tmp_path: Path) -> None:
    text = "@delay_ms[4100]: \n(..., 0)  2 |  |\n[0, 10)   5 |@@|\n[10, 20)   1 |  |\n[20, ...)   1 |  |\n"
    (loop,) = read(tmp_path, text)
    assert loop.name == "@delay_ms[4100]"
    assert coarse(loop).edges_ns == (0, 10_000_000, 20_000_000, 40_000_000)
    assert coarse(loop).counts == (5, 1, 1)


def test_bpftrace_map_without_a_unit_is_refused_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="@usecs"):
        read(tmp_path, "@bytes: \n[0, 1)    3 |@@  |\n")


def test_bpftrace_map_printed_twice_is_not_counted_twice_unless_it_was_cleared(tmp_path: Path) -> None:
    first, grown = "@us: \n[2, 4)   3 |@ |\n", "@us: \n[2, 4)   5 |@ |\n"
    assert coarse(read(tmp_path, first + grown)[0]).counts == (5,)
    assert coarse(read(tmp_path, grown + first)[0]).counts == (8,)


@pytest.mark.parametrize("name", ["file_server.bpftrace.txt", "file_server.bpftrace.json"])
def test_the_file_servers_histogram_is_bimodal(name: str) -> None:
    for loop in ingest(TRACES / name).loops:
        found = coarse(loop)
        assert find_modes(Bins(found.edges_ns, found.counts, found.tick_ns, found.per_octave)).shape == "bimodal"


def hlog(path: Path, values_ns: list[int], ratio: float) -> None:
    histogram = HdrHistogram(1, 3_600_000_000_000, 3)
    for value in values_ns:
        histogram.record_value(value)
    histogram.set_start_time_stamp(1_700_000_000_000)
    histogram.set_end_time_stamp(1_700_000_002_000)
    with path.open("w") as file:
        writer = HistogramLogWriter(file)
        writer.output_log_format_version()
        writer.output_legend()
        writer.output_interval_histogram(histogram, max_value_unit_ratio=ratio)


@pytest.mark.parametrize(("ratio", "unit_ns"), [(1e6, 1), (1e3, 1000)])
def test_hlog_by_its_own_unit(ratio: float, unit_ns: int, tmp_path: Path) -> None:
    values = [700_000] * 900 + [30_000_000] * 40
    path = tmp_path / "log.hlog"
    hlog(path, [value // unit_ns for value in values], ratio)
    (loop,) = ingest(path).loops
    assert loop.last_ns - loop.opened_ns == 2_000_000_000
    assert sum(loop.counts.values()) == len(values)
    for bucket, count in loop.counts.items():
        low_ns, high_ns = bounds_ns(bucket)
        near = 700_000 if count == 900 else 30_000_000
        assert 0.96 * near < low_ns <= near < 1.04 * high_ns


def test_values_that_overlap_tell_no_share_of_wall_time(tmp_path: Path) -> None:
    """Corrected for coordinated omission they add up to more than the time recorded: 3 s within 2 s."""
    path = tmp_path / "log.hlog"
    hlog(path, [30_000_000] * 100, 1e6)
    recording = ingest(path)
    assert recording.loops[0].last_ns == recording.loops[0].opened_ns
    assert "shares of wall time" in {missing.what for missing in recording.fidelity.missing}


def test_hlog_of_unknown_unit_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.hlog"
    hlog(path, [5, 6, 7], 77.0)
    with pytest.raises(UnreadableInput, match="unit"):
        ingest(path)
    hlog(path, [5, 6, 7], 1e6)
    path.write_text(path.read_text().replace("HISTFAAA", "HISTEAAA"))
    with pytest.raises(UnreadableInput, match="cannot decode"):
        ingest(path)


def test_nodes_percentiles_become_counts_that_add_up(tmp_path: Path) -> None:
    percentiles = {"0": 9_000_000, "50": 10_000_000, "75": 10_500_000, "100": 70_000_000, "99": 11_000_000}
    content = {"count": 1000, "min": 9_000_000, "max": 70_000_000, "mean": 1, "exceeds": 0, "stddev": 1}
    (loop,) = read(tmp_path, json.dumps({**content, "percentiles": percentiles}))
    assert coarse(loop).counts == (500, 250, 240, 10)
    assert coarse(loop).edges_ns == (0, 1, 500_001, 1_000_001, 60_000_001)


def test_a_bpftrace_map_printed_again_is_not_added_up_because_a_row_is_torn(tmp_path: Path) -> None:
    table = "@usecs: \n[1, 2)      {} |@@@ |\n[2, 4)     {} |@@@ |\n\n"
    whole = table.format(10, 20) + table.format(12, 25)
    assert coarse(read(tmp_path, whole)[0]).counts == (12, 25)
    assert coarse(read(tmp_path, whole.replace("12 |@@@ |", "12 |@"))[0]).counts == (25,)


def test_rows_below_a_torn_heading_are_nobodys(tmp_path: Path) -> None:
    maps = "@usecs: \n[1, 2)      10 |@@@ |\n\n@ot\n[1, 2)      99 |@@@ |\n"
    assert coarse(read(tmp_path, maps)[0]).counts == (10,)
    tables = funclatency("usecs", (0, 1, 3)) + "     usecs      : cou\n" + "     0 -> 1    : 99   |***     |\n"
    assert coarse(read(tmp_path, tables)[0]).counts == (3,)
