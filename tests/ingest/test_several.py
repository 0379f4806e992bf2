"""Several traces are one: workers of one server, the files of `strace -ff`, and recordings kept by --save."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from stallscope.errors import UnreadableInput
from stallscope.ingest.recognise import ingest, ingest_all
from stallscope.recording.merge import merged
from stallscope.recording.reader import read
from stallscope.recording.store import save
from tests.ingest.expected import TRACES
from tests.ingest.test_strace import MS, line, wait

NGINX, REDIS = TRACES / "nginx.strace.txt", TRACES / "redis.perf-trace.txt"
COMMAND = [sys.executable, "-c", "from stallscope.cli import main; main()"]


def stallscope(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_several_files_are_merged_with_their_loops_and_stalls_apart() -> None:
    nginx, redis = ingest(NGINX), ingest(REDIS)
    both = ingest_all([NGINX, REDIS])
    assert (both.source, both.fidelity.level) == ("several", "several")
    assert [loop.id for loop in both.loops] == list(range(1, len(nginx.loops) + len(redis.loops) + 1))
    assert [loop.counts for loop in both.loops] == [loop.counts for one in (nginx, redis) for loop in one.loops]
    assert len(both.stalls) == len(nginx.stalls) + len(redis.stalls)
    assert {loop.process_id for loop in both.loops} <= {process.id for process in both.processes}
    assert both.loops[-1].name.endswith("in redis.perf-trace.txt")
    assert any(note.startswith("nginx.strace.txt: strace stops the program") for note in both.notes)


def test_one_file_named_twice_counts_once() -> None:
    assert ingest_all([NGINX, NGINX]) == ingest(NGINX)


def ff_set(folder: Path) -> list[Path]:
    """What `strace -ff -o trace` leaves of a loop, a thread of its pool, and a forked child with a loop of its own."""
    main = line(0, "clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD}, 88)", "101", pid="")
    main += line(0.1, "clone(child_stack=NULL, flags=SIGCHLD)", "102", pid="")
    main += "".join(wait(1 + 2 * n, pid="") for n in range(3)) + line(6.5, "fsync(3)", ms=30, pid="")
    main += wait(42, pid="") + wait(44, pid="") + "1700000000.050000 +++ exited with 0 +++\n"
    pool = "".join(line(2 * n, "futex(0x7f, FUTEX_WAIT, 0, NULL)", ms=1, pid="") for n in range(30))
    child = "".join(wait(2 * n, pid="") for n in range(5)) + line(9.5, "fdatasync(4)", ms=50, pid="") + wait(70, pid="")
    child += wait(72, pid="")
    for tid, text in ((100, main), (101, pool), (102, child)):
        (folder / f"trace.{tid}").write_text(text)
    return [folder / f"trace.{tid}" for tid in (102, 100, 101)]


def test_the_files_of_ff_are_one_trace(tmp_path: Path) -> None:
    recording = ingest_all(ff_set(tmp_path))
    assert recording.path == str(tmp_path / "trace.*")
    assert recording.source == "strace"
    assert [(loop.tid, sum(loop.counts.values())) for loop in recording.loops] == [(100, 4), (102, 6)]
    found = [(stall.duration_ns, stall.calls[0].call.name) for stall in recording.stalls]
    assert found == [(36 * MS, "fsync"), (61 * MS, "fdatasync")]
    parents = {process.pid: process.parent_pid for process in recording.processes}
    assert parents[102] == 100
    assert any("1 thread ran no event loop" in note and "101 (30 lines)" in note for note in recording.notes)


@pytest.mark.parametrize("trace", [NGINX, REDIS, TRACES / "node-event-loop-delay.json", TRACES / "seastar.log"])
def test_what_is_saved_reads_as_what_was_read(trace: Path, tmp_path: Path) -> None:
    recording = ingest(trace)
    kept = tmp_path / "kept.stall"
    save(recording, kept)
    again = read(kept)
    for name in ("source", "threshold_ns", "fidelity", "loops", "stalls", "suppressed", "processes"):
        assert getattr(again, name) == getattr(recording, name), name
    assert set(again.notes) == set(recording.notes)


def test_analyze_saves_and_every_reporting_command_reads_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept.stall"
    first = stallscope("analyze", "--json", NGINX, "--save", kept)
    assert (first.returncode, first.stderr) == (0, "")
    found, again = json.loads(first.stdout), json.loads(stallscope("analyze", "--json", kept).stdout)
    found["recording"].pop("path"), again["recording"].pop("path")
    assert again == found
    assert stallscope("compare", kept, REDIS).returncode == 0
    refused = stallscope("analyze", NGINX, "--save", kept)
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    assert stallscope("analyze", NGINX, "--save", kept, "--force").returncode == 0


def test_recordings_and_traces_merge_at_the_highest_threshold(tmp_path: Path) -> None:
    kept = tmp_path / "kept.stall"
    save(ingest(REDIS, threshold_ns=45 * MS), kept)
    both = merged([read(kept), ingest(NGINX)])
    assert both.threshold_ns == 45 * MS
    assert all(stall.duration_ns >= 45 * MS for stall in both.stalls)
    done = stallscope("analyze", "--json", kept, NGINX)
    assert json.loads(done.stdout)["recording"]["threshold_ms"] == 45.0


def test_one_unreadable_file_among_several_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("nothing of the kind\n")
    with pytest.raises(UnreadableInput, match="other is in no format"):
        ingest_all([NGINX, tmp_path / "other"])


def test_traces_whose_clocks_have_nothing_in_common_last_as_long_as_the_longest() -> None:
    nginx, redis = ingest(NGINX), ingest(REDIS)  # one counts from 1970, the other from its own start
    both = merged([nginx, redis])
    lengths = [one.ended_ns - one.started_ns for one in (nginx, redis)]
    assert both.ended_ns - both.started_ns == max(lengths)


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([*COMMAND, "analyze", "--json", pipe], stdout=subprocess.PIPE, text=True) as process:
        pipe.write_bytes(NGINX.read_bytes())
        found = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert found["recording"]["source"] == "strace"


def test_one_bar_tells_the_progress_of_several_files(tmp_path: Path) -> None:
    primary, secondary = os.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with subprocess.Popen([*COMMAND, "analyze", NGINX, REDIS], stdout=subprocess.DEVNULL, stderr=secondary) as process:
        os.close(secondary)
        shown = b"".join(iter(lambda: _read(primary), b"")).decode()
    os.close(primary)
    assert process.returncode == 0
    assert "2 files" in shown
    assert re.search(r"\d+\.\d/\d+\.\d [kM]B", shown)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO, which is how a terminal's other end tells that it was closed
        return b""
