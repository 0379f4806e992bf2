"""Each recorded trace in samples/traces/ gives the verdict that stands beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stallscope.ingest.recognise import ingest
from tests.ingest.expected import TRACES, expectation, summary, traces


@pytest.mark.parametrize("trace", traces(), ids=lambda path: path.name)
def test_trace_gives_the_verdict_beside_it(trace: Path) -> None:
    assert summary(trace) == json.loads(expectation(trace).read_text(encoding="utf-8"))


@pytest.mark.parametrize("tool", ["strace-yy", "strace", "perf-trace", "perf-script-raw", "perf-script"])
def test_every_tracer_finds_the_three_calls_that_block_the_file_server(tool: str) -> None:
    recording = ingest(TRACES / f"file_server.{tool}.txt")
    (loop,) = recording.loops
    slow = {call.call.name for stall in recording.stalls for call in stall.calls if call.duration_ns >= 20_000_000}
    assert slow == {"openat", "read", "write"}
    assert len(recording.stalls) < sum(loop.counts.values()) / 10


def test_dropboxs_histogram_is_read_to_the_count() -> None:
    (loop,) = ingest(TRACES.parent / "dropbox_funclatency.txt").loops
    assert loop.coarse is not None
    assert loop.name == "nginx:ngx_process_events_and_timers"
    assert loop.coarse.edges_ns == tuple(ms * 1_000_000 for ms in (0, 2, 4, 8, 16, 32, 64, 128))
    assert loop.coarse.counts == (3799, 0, 0, 0, 409, 313, 128)
    assert loop.coarse.per_octave == 1
