"""What recordings look like to other tools: golden lines of made-up ones, read back where a library reads them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from stallscope.agent.layout import MAX_NS, bucket_of
from stallscope.analysis.examine import examine
from stallscope.ingest.recognise import ingest
from stallscope.recording.nouns import Call, GcPause, Interval, Recording, Resource, Stall, TimedCall
from stallscope.report import export_chrome, export_csv, export_folded, export_hlog
from tests.analysis.recordings import HANDLER, MS, SERVER, S, blocked, loop, path, recording, stack

READ = path("read", "/data/7.bin")
OPEN = path("openat", "/data/a;b\nc.bin (deleted)")


def timed(call: Call, start_ms: float, duration_ms: float, count: int = 1) -> TimedCall:
    return TimedCall(round(start_ms * MS), round(duration_ms * MS), call, stack(20, "load"), count)


def stalled() -> Recording:
    """Two stalls: one of 50 ms with an open, a read and a collection, and one of 12 ms of which nothing is known."""
    first = Stall(
        1,
        2 * S,
        50 * MS,
        task="Task-1",
        current=HANDLER,
        calls=(timed(OPEN, 2_001, 9), timed(READ, 2_010, 30), timed(path("stat", "/data"), 2_041, 2, count=300)),
        pauses=(GcPause(2_040 * MS + MS // 2, 20 * MS, 2, stack(21, "load")),),
    )
    return recording([first, Stall(1, S, 12 * MS)], started_wall_s=1_700_000_000.25)


def test_folded_stacks_sum_to_the_stall_time() -> None:
    lines = export_folded.render(examine(stalled())).splitlines()
    way = "Server.handle;Server.handle (app/server.py:12);load"
    assert lines[0] == f"{way} (app/server.py:20);[read /data/7.bin] 30000"
    assert f"{way} (app/server.py:20);[openat /data/a b c.bin] 9000" in lines
    assert f"{way} (app/server.py:21);[gc] 9500" in lines
    assert "MainThread;[unexplained] 12000" in lines
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == 62_000


def test_without_a_stall_nothing_is_folded() -> None:
    assert export_folded.render(examine(recording([]))) == ""


def test_csv_has_a_row_a_stall_in_the_order_of_time() -> None:
    text = export_csv.render(examine(stalled()))
    assert text.count("\r\n") == 3
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["duration_ms"] for row in rows] == ["12.0", "50.0"]
    assert rows[1] == {
        "time": "2023-11-14T22:13:22.250000Z",
        "start_s": "2.0",
        "duration_ms": "50.0",
        "loop": "1",
        "pid": "100",
        "handler": "Server.handle",
        "cause": "blocking-syscall",
        "cause_ms": "30.0",
        "call": "read",
        "resource": "/data/7.bin",
        "file": SERVER,
        "line": "20",
        "function": "load",
        "culprit": "1",
    }
    assert (rows[0]["handler"], rows[0]["cause"], rows[0]["call"], rows[0]["line"]) == ("", "unexplained", "", "")


@pytest.mark.parametrize("wall_s", [1e300, 1e12, float("nan")])
def test_a_time_of_day_that_is_nonsense_is_left_out(wall_s: float) -> None:
    findings = examine(stalled()._replace(started_wall_s=wall_s))
    assert {row["time"] for row in csv.DictReader(export_csv.render(findings).splitlines())} == {""}
    assert "BaseTime" not in export_hlog.render(findings)


def test_csv_quotes_what_has_to_be_and_leaves_the_unknown_empty() -> None:
    name = 'a "b",\nc.bin'
    made = recording([blocked(50 * MS, path("read", name), stack(20))])
    (row,) = csv.DictReader(io.StringIO(export_csv.render(examine(made)), newline=""))
    assert (row["resource"], row["time"]) == (name, "")


def events(made: Recording) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(export_chrome.render(examine(made)))["traceEvents"]
    return found


def test_a_chrome_trace_names_its_tracks_and_nests_its_spans() -> None:
    found = events(stalled())
    names = {
        (event["name"], event["pid"], event["tid"]): event["args"]["name"] for event in found if event["ph"] == "M"
    }
    assert names == {
        ("process_name", 1, 1): "python server.py (pid 100)",
        ("thread_name", 1, 1): "loop 1: asyncio MainThread",
    }
    unknown, stall, *inner = [event for event in found if event["ph"] == "X"]
    assert (unknown["name"], unknown["ts"], unknown["dur"]) == ("stall", 1e6, 12_000)
    assert (stall["name"], stall["ts"], stall["dur"]) == ("Server.handle", 2e6, 50_000)
    about = {key: stall["args"][key] for key in ("cause", "culprit", "call", "at", "task", "short calls")}
    assert about == {
        "cause": "blocking-syscall",
        "culprit": 1,
        "call": "read /data/7.bin",
        "at": f"{SERVER}:20",
        "task": "Task-1",
        "short calls": ["300 x stat /data: 2 ms"],
    }
    assert [(event["name"], event["ts"] - 2e6, event["dur"]) for event in inner] == [
        ("openat /data/a;b\nc.bin", 1_000, 9_000),
        ("read /data/7.bin", 10_000, 30_000),
        ("gc, generation 2", 40_500, 9_500),  # cut at the end of its stall
    ]
    assert inner[1]["args"]["at"] == f"{SERVER}:20"


def test_spans_that_overlap_are_cut_so_that_they_nest() -> None:
    lying = Stall(1, 0, 50 * MS, calls=(timed(READ, 1, 20), timed(OPEN, 5, 40), timed(READ, 60, 5), timed(READ, -3, 5)))
    inner = [event for event in events(recording([lying])) if event["ph"] == "X"][1:]
    open_until: list[float] = [50_000]
    for event in inner:
        while event["ts"] >= open_until[-1]:
            open_until.pop()
        assert event["ts"] + event["dur"] <= open_until[-1]
        open_until.append(event["ts"] + event["dur"])
    assert len(inner) == 3


def test_without_timed_calls_the_samples_are_shown() -> None:
    found = events(recording([blocked(50 * MS, READ, stack(20))]))
    assert {(event["name"], event["args"]["in"]) for event in found if event.get("cat") == "sampled"} == {
        ("handle", "read /data/7.bin")
    }


def test_an_exported_chrome_trace_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(export_chrome.render(examine(stalled())))
    read = ingest(tmp_path / "x.json")
    assert [(stall.start_ns, stall.duration_ns) for stall in read.stalls] == [(S, 12 * MS), (2 * S, 50 * MS)]
    assert [[time.handler.name for time in stall.handlers] for stall in read.stalls] == [[], ["Server.handle"]]
    assert [one.name for one in read.loops] == ["loop 1: asyncio MainThread"]


def histograms(text: str, directory: Path) -> list[HdrHistogram]:
    """As hdrhistogram's own reader finds them."""
    (directory / "x.hlog").write_text(text)
    reader = HistogramLogReader(str(directory / "x.hlog"), HdrHistogram(1, MAX_NS, 3))
    found = list(iter(reader.get_next_interval_histogram, None))
    reader.close()
    return found


def test_an_hlog_has_a_histogram_for_each_interval_of_each_loop(tmp_path: Path) -> None:
    minutes = (
        Interval(0, 60 * S, {bucket_of(MS // 10): 7, bucket_of(50 * MS): 1}),
        Interval(60 * S, 100 * S, {bucket_of(MS): 2}),
    )
    counts = {bucket_of(MS // 10): 7, bucket_of(50 * MS): 1, bucket_of(MS): 2}
    first = loop([], 100 * S)._replace(counts=counts, intervals=minutes)
    second = loop([20_000] * 5, 90 * S, loop_id=2)
    made = recording([Stall(1, S, 50 * MS)], [first, second], started_wall_s=1e9)
    one, two, three = histograms(export_hlog.render(examine(made)), tmp_path)
    assert [(h.get_tag(), h.total_count) for h in (one, two, three)] == [
        ("loop-1-pid-100", 8),
        ("loop-2-pid-100", 5),
        ("loop-1-pid-100", 2),
    ]
    times = [(h.get_start_time_stamp() - 1e12, h.get_end_time_stamp() - 1e12) for h in (one, two, three)]
    assert times == [(0, 60_000), (0, 90_000), (60_000, 100_000)]
    assert one.values_are_equivalent(one.get_max_value(), 50 * MS)  # a stall's length is exact
    assert three.get_max_value() == pytest.approx(MS, rel=0.02)


def test_a_fast_loop_keeps_the_unit_of_its_values(tmp_path: Path) -> None:
    (tmp_path / "x.hlog").write_text(export_hlog.render(examine(recording([], [loop([30_000] * 40 + [45_000])]))))
    (read,) = ingest(tmp_path / "x.hlog").loops
    assert read.counts == {bucket_of(30_000): 40, bucket_of(45_000): 1}
    assert (read.opened_ns, read.last_ns) == (0, 60 * S)


def test_a_resource_without_a_name_is_left_out() -> None:
    made = recording([Stall(1, 0, 50 * MS, calls=(timed(Call("futex", Resource("lock", "")), 1, 40),))])
    assert ";[futex] 40000" in export_folded.render(examine(made))
