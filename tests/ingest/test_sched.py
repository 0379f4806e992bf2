"""The scheduler's events: beside calls they take waits for a CPU out of them, alone they tell those waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope.analysis.examine import examine
from stallscope.ingest.perf_sched import Reader
from stallscope.ingest.recognise import ingest, recognise
from stallscope.ingest.source import Source
from stallscope.recording.nouns import Recording
from tests.ingest.expected import TRACES

MS = 1_000_000
MINE = "python3 18700"


def event(at_ms: float, what: str, who: str = MINE) -> str:
    return f"         {who} [001] {5000 + at_ms / 1000:12.6f}: {what}\n"


def leave(at_ms: float, state: str, long: bool = True) -> str:
    if long:
        other = "next_comm=x y next_pid=7 next_prio=120"
        what = f"prev_comm=python3 prev_pid=18700 prev_prio=120 prev_state={state} ==> {other}"
    else:
        what = f"python3:18700 [120] {state} ==> x y:7 [120]"
    return event(at_ms, f"sched:sched_switch: {what}")


def wake(at_ms: float, long: bool = True) -> str:
    what = "comm=python3 pid=18700 prio=120 target_cpu=001" if long else "python3:18700 [120]<CPU:001>"
    return event(at_ms, f"sched:sched_wakeup: {what}", "swapper     0")


def come(at_ms: float, long: bool = True) -> str:
    if long:
        what = "prev_comm=x y prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=python3 next_pid=18700 next_prio=120"
    else:
        what = "x y:7 [120] S ==> python3:18700 [120]"
    return event(at_ms, f"sched:sched_switch: {what}", "x y     7")


def wait(at_ms: float, ms: float = 1) -> str:
    enter = event(at_ms, "raw_syscalls:sys_enter: NR 232 (7, 7f, 2, ffffffff, 0, 0)")
    return enter + event(at_ms + ms, "raw_syscalls:sys_exit: NR 232 = 1")


def read(tmp_path: Path, text: str) -> Recording:
    path = tmp_path / "trace"
    path.write_text(text)
    return ingest(path)


def ledger(recording: Recording) -> dict[str, int]:
    (found,) = examine(recording).stalls
    return {cause: ns // MS for cause, ns in found.ledger.items()}


@pytest.mark.parametrize("long", [True, False])
def test_a_call_ends_when_its_thread_was_woken_not_when_it_had_a_cpu(long: bool, tmp_path: Path) -> None:
    text = wait(0) + wait(2) + event(4, "raw_syscalls:sys_enter: NR 74 (5, 0, 0, 0, 0, 0)")
    text += leave(4.01, "D", long) + wake(24, long) + come(34, long)
    text += event(34.01, "raw_syscalls:sys_exit: NR 74 = 0") + wait(36) + wait(38)
    recording = read(tmp_path, text)
    (stall,) = recording.stalls
    assert (stall.calls[0].call.name, stall.calls[0].duration_ns) == ("fsync", 20 * MS)
    assert ledger(recording) == {"blocking-syscall": 20, "descheduled": 10, "unexplained": 3}


def test_a_thread_that_is_displaced_between_calls_waits_for_a_cpu(tmp_path: Path) -> None:
    text = wait(0) + wait(2) + leave(4, "R+") + come(24) + wait(26) + wait(28)
    assert ledger(read(tmp_path, text)) == {"descheduled": 20, "unexplained": 3}


def test_an_uninterruptible_sleep_outside_any_call_is_blocking(tmp_path: Path) -> None:
    text = wait(0) + wait(2) + leave(4, "D") + wake(24) + come(24.001) + wait(26) + wait(28)
    assert ledger(read(tmp_path, text)) == {"blocking-syscall": 20, "unexplained": 3}


def test_a_return_that_nobody_saw_explains_nothing_and_is_said(tmp_path: Path) -> None:
    text = wait(0) + wait(2) + leave(4, "R") + wait(26) + wait(28)
    recording = read(tmp_path, text)
    assert ledger(recording) == {"unexplained": 23}
    assert any(missing.what == "some run-queue delays" for missing in recording.fidelity.missing)


def test_stalls_with_unpaired_calls_are_left_out(tmp_path: Path) -> None:
    text = wait(0) + wait(2) + event(4, "raw_syscalls:sys_exit: NR 74 = 0") + wait(36) + wait(38)
    recording = read(tmp_path, text)
    assert not recording.stalls
    assert any("1 stall left out" in note for note in recording.notes)


def test_lost_events_leave_nothing_in_progress(tmp_path: Path) -> None:
    lost = event(20, "PERF_RECORD_LOST lost 12").replace(": PERF", ": PERF")
    recording = read(tmp_path, wait(0) + wait(2) + lost + wait(36) + wait(38))
    assert not recording.stalls
    assert any("perf lost 12 events" in note for note in recording.notes)


def test_a_signals_return_is_no_call_and_a_restarted_wait_goes_on(tmp_path: Path) -> None:
    text = wait(0) + wait(2) + event(4, "raw_syscalls:sys_enter: NR 15 (0, 0, 0, 0, 0, 0)")
    text += (
        event(4.1, "raw_syscalls:sys_exit: NR -1 = 0")
        + wait(30)
        + event(32, "raw_syscalls:sys_enter: NR 232 (7, 7f, 2, ffffffff, 0, 0)")
    )
    text += (
        event(33, "raw_syscalls:sys_exit: NR 232 = -516") + event(90, "raw_syscalls:sys_exit: NR 219 = 1") + wait(91)
    )
    recording = read(tmp_path, text + wait(93))
    assert [stall.duration_ns for stall in recording.stalls] == [27 * MS]


@pytest.mark.parametrize("long", [True, False])
def test_the_schedulers_events_alone_tell_waits_for_a_cpu_and_for_a_disk(long: bool, tmp_path: Path) -> None:
    text = leave(0, "S", long) + wake(50, long) + come(75, long)  # an idle wait perhaps, then 25 ms for a CPU
    text += leave(80, "D", long) + wake(110, long) + come(111, long) + leave(112, "R", long) + come(116, long)
    recording = read(tmp_path, text)
    assert recording.source == "perf-sched"
    assert [stall.duration_ns for stall in recording.stalls] == [25 * MS, 30 * MS]
    assert [found.ledger for found in examine(recording).stalls] == [
        {"blocking-syscall": 30 * MS},
        {"descheduled": 25 * MS},
    ]
    (loop,) = recording.loops
    assert (loop.tid, loop.kind, loop.counts) == (18700, "thread", {})
    assert any("waited 3 times for a CPU, 30 ms in all, the longest 25 ms" in note for note in recording.notes)
    assert examine(recording).loops[0].stall_count == 2


def test_a_torn_event_times_nothing(tmp_path: Path) -> None:
    torn = come(30)[:90] + "\n"
    recording = read(tmp_path, leave(0, "R") + torn + leave(60, "R") + come(61))
    assert not recording.stalls
    assert "1 line could not be read and did not count" in recording.notes


def test_a_missing_switch_ends_every_wait_for_a_cpu(tmp_path: Path) -> None:
    """Who was on a CPU must be who leaves it: in a filtered text others came and went there unseen."""
    other = "prev_comm=z prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=python3 next_pid=18700 next_prio=120"
    recording = read(tmp_path, leave(0, "R") + event(40, f"sched:sched_switch: {other}", "z     9"))
    assert not recording.stalls
    assert any("1 gap in the record of who ran" in note for note in recording.notes)


def test_both_are_known_by_their_content() -> None:
    assert recognise(Source(TRACES / "contended.perf-sched.txt")) == "perf-sched"
    assert recognise(Source(TRACES / "contended.perf-script-sched.txt")) == "perf-script"


def test_a_stamp_that_lies_behind_does_not_end_a_thread_before_it_began() -> None:
    reader = Reader(MS)
    for at in ("10.500000", "10.300000"):
        reader.take(
            f"python 7 [000] {at}: sched:sched_switch: python:7 [120] S ==> swapper/0:0 [120]\n".encode()
            + f"swapper 0 [000] {at}: sched:sched_switch: swapper/0:0 [120] R ==> python:7 [120]\n".encode()
        )
    assert all(thread.first_ns <= thread.last_ns for thread in reader.threads.values())
