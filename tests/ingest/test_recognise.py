"""Formats are known by content, and what is no trace is refused in one sentence."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from stallscope.errors import UnreadableInput
from stallscope.ingest.recognise import FORMATS, ingest, recognise
from stallscope.ingest.source import Source
from tests.ingest.expected import TRACES

FORMAT_OF = {
    "asyncio_debug.log": "asyncio-log",
    "ext4slower.txt": "slower",
    "file_server.bpftrace.json": "bpftrace-json",
    "file_server.bpftrace.txt": "bpftrace",
    "file_server.perf-script-raw.txt": "perf-script",
    "file_server.perf-trace-summary.txt": "perf-trace-summary",
    "file_server.perf-trace.txt": "perf-trace",
    "file_server.strace-yy.txt": "strace",
    "node-event-loop-delay.json": "node-histogram",
    "pool.viztracer.json": "chrome",
    "seastar.log": "seastar",
    "../dropbox_funclatency.txt": "funclatency",
}
REFUSED = {
    "syscount": "Tracing syscalls, printing top 10... Ctrl+C to quit.\n[09:39:04]\nSYSCALL   COUNT\nwrite   10739\n",
    "offcputime": "Tracing off-CPU time (us) of all threads by kernel stack... Hit Ctrl-C to end.\n    schedule\n",
    "strace -c": "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- -----------\n",
    "perf script -i": "PERFILE2\0\0\0\0h\0\0",
}


@pytest.mark.parametrize("name", FORMAT_OF)
def test_a_trace_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / "nameless"
    path.write_bytes((TRACES / name).read_bytes())
    assert recognise(Source(path)) == FORMAT_OF[name]


@pytest.mark.parametrize("word", REFUSED)
def test_what_supports_no_verdict_is_refused_with_the_reason(word: str, tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text(REFUSED[word])
    with pytest.raises(UnreadableInput, match=word) as refused:
        ingest(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"hello world\n", bytes(range(256)) * 300, b"{}", b"[1, 2]"])
def test_unknown_content_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "unknown"
    path.write_bytes(content)
    with pytest.raises(UnreadableInput) as refused:
        ingest(path)
    assert "\n" not in str(refused.value)


def test_the_format_can_be_forced_and_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("not recognisable\n" * 100 + (TRACES / "seastar.log").read_text())
    assert ingest(path, format="seastar").source == "seastar"
    with pytest.raises(UnreadableInput, match="choose one of"):
        ingest(path, format="dtrace")
    assert "strace" in FORMATS


def test_a_packed_trace_that_breaks_off_is_read_and_said_to_be_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "trace.gz"
    packed = gzip.compress((TRACES / "file_server.strace-yy.txt").read_bytes())
    path.write_bytes(packed[: len(packed) * 2 // 3])
    recording = ingest(path)
    assert recording.source == "strace"
    assert not recording.complete
    assert any("breaks off" in note for note in recording.notes)
    assert recording.stalls
