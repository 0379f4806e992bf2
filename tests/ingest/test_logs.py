"""Stalls that runtimes reported themselves: Seastar's log, asyncio's debug mode; and Chrome's spans."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

import pytest

from stallscope.analysis.examine import examine
from stallscope.ingest.asyncio_log import handler_of
from stallscope.ingest.recognise import ingest
from stallscope.recording.nouns import Handler, Recording
from tests.ingest.expected import TRACES


def read(tmp_path: Path, text: str) -> Recording:
    path = tmp_path / "trace"
    path.write_text(text)
    return ingest(path)


def test_seastars_repeats_are_one_stall_with_its_backtrace() -> None:
    recording = ingest(TRACES / "seastar.log")
    longest = max(recording.stalls, key=lambda stall: stall.duration_ns)
    assert longest.duration_ns == 1_000_000_000
    assert longest.spans[0].stack[0].function == "0x00000000004a1b20"
    assert [len(stall.spans[0].stack) for stall in recording.stalls if stall.duration_ns == 33_000_000] == [2]


def blocks() -> None:
    time.sleep(0.002)


def test_asyncios_own_lines_name_the_handler(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.001
        asyncio.get_running_loop().call_soon(blocks)
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "asyncio"):
        asyncio.run(main(), debug=True)
    path = tmp_path / "debug.log"
    path.write_text("".join(f"WARNING:asyncio:{message}\n" for message in caplog.messages))
    recording = ingest(path, threshold_ns=1_000_000)
    first_line = blocks.__code__.co_firstlineno
    found = [stall.current for stall in recording.stalls if stall.current and stall.current.line == first_line]
    assert [(handler.name, handler.file) for handler in found] == [("blocks", __file__)]


HANDLERS = {
    "Handle on_data(3) at /srv/a.py:7 created at /srv/b.py:9": Handler("on_data", "/srv/a.py", 7),
    "TimerHandle when=5.5 tick() at a.py:3": Handler("tick", "a.py", 3),
    "Task pending name='t 1' coro=<Server.run() running at /srv/a.py:5> cb=[x()]": Handler(
        "Server.run", "/srv/a.py", 5
    ),
    "Task finished name='x' coro=<main() done, defined at /srv/my app.py:1> result=None": Handler(
        "main", "/srv/my app.py", 1
    ),
    "Handle <TaskWakeupMethWrapper object at 0x7f1>(<Future finished>)": Handler("TaskWakeupMethWrapper"),
}


@pytest.mark.parametrize("text", HANDLERS)
def test_handlers_in_asyncios_descriptions(text: str) -> None:
    assert handler_of(text) == HANDLERS[text]


def span(name: str, from_ms: float, to_ms: float, tid: int = 1) -> dict[str, object]:
    return {"ph": "X", "pid": 1, "tid": tid, "name": name, "ts": from_ms * 1000, "dur": (to_ms - from_ms) * 1000}


def test_a_browsers_tasks_are_iterations_and_nested_ones_are_not(tmp_path: Path) -> None:
    events = [span("RunTask", 0, 4), span("RunTask", 10, 70), span("RunTask", 20, 30), span("parseHTML", 20, 65)]
    recording = read(tmp_path, json.dumps({"traceEvents": [*events, span("Raster", 0, 99, tid=2)]}))
    (loop,), (stall,) = recording.loops, recording.stalls
    assert sum(loop.counts.values()) == 2
    assert stall.duration_ns == 60_000_000
    assert [(time.handler.name, time.total_ns) for time in stall.handlers] == [("parseHTML", 45_000_000)]
    assert any("1 thread ran no event loop" in note for note in recording.notes)


def test_viztracers_waits_bound_the_iterations_and_tasks_go_to_their_thread(tmp_path: Path) -> None:
    select = "EpollSelector.select (/usr/lib/python3.11/selectors.py:451)"
    events = [
        span(select, 0, 5),
        span("select.epoll.poll", 1, 5),
        span(select, 45, 46),
        span("select.epoll.poll", 10, 30),
    ]
    task = span("fetch (/srv/a.py:8)", 6, 44, tid=7_799_808)
    recording = read(tmp_path, json.dumps({"traceEvents": [*events, task]}))
    (stall,) = recording.stalls
    assert stall.duration_ns == 40_000_000
    assert stall.handlers[0].handler == Handler("fetch", "/srv/a.py", 8)


def test_a_chrome_trace_cut_off_when_the_browser_was_killed_is_read(tmp_path: Path) -> None:
    text = "[" + ",\n".join(json.dumps(span("RunTask", 20 * n, 20 * n + 15)) for n in range(4)) + ","
    assert len(read(tmp_path, text).stalls) == 4


def test_a_chrome_trace_that_breaks_off_in_an_event_is_read_up_to_there(tmp_path: Path) -> None:
    event = '{"ph":"X","name":"RunTask","pid":1,"tid":2,"ts":%d,"dur":50000,"args":{"a":{}}}'
    path = tmp_path / "trace.json"
    path.write_text('{"traceEvents":[' + event % 0 + "," + event % 90000 + "," + (event % 180000)[:-9])
    recording = ingest(path)
    assert [stall.start_ns for stall in recording.stalls] == [0, 90_000_000]
    assert any("breaks off" in note for note in recording.notes)


def test_where_iterations_are_unknown_nobody_is_said_to_wait_for_nothing() -> None:
    findings = examine(ingest(TRACES / "seastar.log"))
    assert findings.loops[0].stall_count
    assert all((loop.arrival, loop.utilization) == (None, None) for loop in findings.loops)
