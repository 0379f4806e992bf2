"""perf's texts: trace, its summary, and scripts of tracepoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope.errors import UnreadableInput
from stallscope.ingest.recognise import ingest
from stallscope.ingest.window import KEPT_BYTES
from stallscope.recording.nouns import Recording, Resource
from tests.ingest.expected import TRACES

MS = 1_000_000


def read(tmp_path: Path, text: str) -> Recording:
    path = tmp_path / "trace"
    path.write_text(text)
    return ingest(path)


def trace_line(at_ms: float, ms: float, call: str, result: str = "0", who: str = "") -> str:
    return f"{at_ms:10.3f} ({ms:6.3f} ms): {who}{call:60} = {result}\n"


def trace_turns(count: int) -> str:
    wait = "epoll_wait(epfd: 7<anon_inode:[eventpoll]>, events: 0x7f, maxevents: 2, timeout: 4294967295)"
    return "".join(trace_line(2 * number, 1, wait, "1") for number in range(count))


def test_perf_trace_gives_an_opened_file_the_path_of_its_first_use(tmp_path: Path) -> None:
    text = trace_turns(3) + trace_line(6, 24, "openat(dfd: CWD, filename: 0x98, flags: RDONLY)", "16")
    text += trace_line(31, 0.02, "read(fd: 16</srv/archive/3.bin>, buf: 0x72, count: 65536)", "65536")
    text += trace_line(40, 1, "epoll_wait(epfd: 7, events: 0x7f, maxevents: 2)", "1") + trace_line(
        42, 1, "epoll_wait(epfd: 7)"
    )
    recording = read(tmp_path, text)
    (stall,) = recording.stalls
    assert stall.duration_ns == 35 * MS
    assert stall.calls[0].call.resource == Resource("path", "/srv/archive/3.bin")
    assert recording.loops[0].zero_waits == 2


def test_perf_trace_joins_a_call_in_two_lines(tmp_path: Path) -> None:
    wait = "epoll_wait(epfd: 4<anon_inode:[eventpoll]>, events: 0x7f, maxevents: 1, timeout: 5)"
    turns = "".join(trace_line(2 * number, 1, wait, "1", "python3/41 ") for number in range(3))
    turns += "     6.000 (         ): python3/41 fsync(fd: 5</srv/db>)                               ...\n"
    turns += trace_line(7, 0.02, "getpid()", "42", "python3/42 ")
    turns += "     6.000 (20.000 ms): python3/41  ... [continued]: fsync())                          = 0\n"
    turns += trace_line(30, 1, wait, "1", "python3/41 ") + trace_line(32, 1, wait, "1", "python3/41 ")
    recording = read(tmp_path, turns)
    (stall,) = recording.stalls
    assert (stall.duration_ns, stall.calls[0].duration_ns) == (25 * MS, 20 * MS)
    assert stall.calls[0].call.resource == Resource("path", "/srv/db")


def test_perf_trace_leaves_out_what_lost_events_may_have_hidden(tmp_path: Path) -> None:
    text = trace_turns(3) + "LOST 12 events!\n" + trace_turns(30)[-200:].replace("58.000", "80.000")
    recording = read(tmp_path, text)
    assert not recording.stalls
    assert any("perf lost 12 events" in note for note in recording.notes)


def test_perf_summary_tells_each_calls_longest_and_no_more() -> None:
    recording = ingest(TRACES / "file_server.perf-trace-summary.txt")
    assert {stall.calls[0].call.name for stall in recording.stalls} == {"write", "read", "openat"}
    assert not recording.loops[0].counts
    assert "iterations and their modes" in [missing.what for missing in recording.fidelity.missing]


def event(at_ms: float, what: str) -> str:
    return f"         python3 18700 [001] {5000 + at_ms / 1000:12.6f}: {what}\n"


@pytest.mark.parametrize("raw", [True, False])
def test_perf_script_pairs_entries_and_exits(raw: bool, tmp_path: Path) -> None:
    text = ""
    for at_ms in (0, 2, 40, 42):
        enter = (
            "raw_syscalls:sys_enter: NR 232 (7, 7f, 2, 0, 0, 0)"
            if raw
            else "syscalls:sys_enter_epoll_wait: epfd: 0x00000007, events: 0x7f"
        )
        leave = "raw_syscalls:sys_exit: NR 232 = 1" if raw else "syscalls:sys_exit_epoll_wait: 0x1"
        text += event(at_ms, enter) + event(at_ms + 1, leave)
        if at_ms == 2:
            text += event(
                4, "raw_syscalls:sys_enter: NR 74 (5, 0, 0, 0, 0, 0)" if raw else "syscalls:sys_enter_fsync: fd: 0x5"
            )
            text += event(34, "raw_syscalls:sys_exit: NR 74 = 0" if raw else "syscalls:sys_exit_fsync: 0x0")
    recording = read(tmp_path, text)
    (stall,) = recording.stalls
    assert sum(recording.loops[0].counts.values()) == 3
    assert (stall.duration_ns, stall.calls[0].call.name, stall.calls[0].call.detail) == (37 * MS, "fsync", "fd 5")


def test_perf_script_of_another_machine_is_refused(tmp_path: Path) -> None:
    text = "# arch : aarch64\n" + event(0, "raw_syscalls:sys_enter: NR 22 (7, 7f, 2, 0, 0, 0)")
    with pytest.raises(UnreadableInput, match="aarch64"):
        read(tmp_path, text)


def test_perf_script_keeps_a_stall_together_over_tens_of_megabytes_of_other_threads(tmp_path: Path) -> None:
    def turn(at_ms: float) -> str:
        return event(at_ms, "raw_syscalls:sys_enter: NR 232 (7, 7f, 2, 0, 0, 0)") + event(
            at_ms + 1, "raw_syscalls:sys_exit: NR 232 = 1"
        )

    others = event(20, "raw_syscalls:sys_enter: NR 39 (0, 0, 0, 0, 0, 0)").replace("18700", "18800")
    others += event(20, "raw_syscalls:sys_exit: NR 39 = 18800").replace("18700", "18800")
    text = turn(0) + turn(2) + event(4, "raw_syscalls:sys_enter: NR 74 (5, 0, 0, 0, 0, 0)")
    text += others * (3 * KEPT_BYTES // (2 * len(others)))
    text += event(34, "raw_syscalls:sys_exit: NR 74 = 0") + turn(40) + turn(42)
    (stall,) = read(tmp_path, text).stalls
    assert (stall.duration_ns, stall.calls[0].call.name, stall.calls[0].duration_ns) == (37 * MS, "fsync", 30 * MS)


def test_a_line_of_spaces_may_be_all_that_is_left_of_a_wait(tmp_path: Path) -> None:
    def turn(at_ms: float) -> list[str]:
        return [
            event(at_ms, "raw_syscalls:sys_enter: NR 232 (7, 7f, 2, 0, 0, 0)"),
            event(at_ms + 1, "raw_syscalls:sys_exit: NR 232 = 1"),
        ]

    kept = [*turn(0), *turn(2), turn(4)[0]]
    assert not read(tmp_path, "".join([*kept, "     \n", *turn(40)])).stalls
    torn_entry = "".join([*turn(0), *turn(2), "     \n", turn(4)[1], *turn(40)])
    assert not read(tmp_path, torn_entry).stalls
    hidden = "".join([*turn(0), *turn(2), "     \n", *turn(40)])
    assert not read(tmp_path, hidden).stalls
