"""strace text in its many shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope.ingest.recognise import ingest
from stallscope.ingest.source import Source
from stallscope.ingest.strace_reader import Reader
from stallscope.recording.nouns import Recording, Resource
from tests.ingest.expected import TRACES

MS = 1_000_000


def read(tmp_path: Path, text: str, name: str = "trace") -> Recording:
    path = tmp_path / name
    path.write_text(text)
    return ingest(path, format="strace")


def line(at_ms: float, call: str, result: str = "0", ms: float = 0.01, pid: str = "100 ") -> str:
    return f"{pid}{1700000000 + at_ms / 1000:.6f} {call} = {result} <{ms / 1000:.6f}>\n"


def wait(at_ms: float, ms: float = 1, descriptor: int = 7, timeout: int = -1, pid: str = "100 ") -> str:
    return line(at_ms, f"epoll_wait({descriptor}, [], 2, {timeout})", "1", ms, pid)


def quick_turns(count: int, from_ms: float = 0) -> str:
    """Waits of 1 ms every 2 ms: iterations of 1 ms."""
    return "".join(wait(from_ms + 2 * number) for number in range(count))


def durations_ms(recording: Recording) -> list[float]:
    return [stall.duration_ns / MS for stall in recording.stalls]


def touched(recording: Recording) -> list[Resource | None]:
    return [stall.calls[0].call.resource for stall in recording.stalls]


def test_an_iteration_is_from_the_return_of_a_wait_to_the_next_entry(tmp_path: Path) -> None:
    recording = read(tmp_path, quick_turns(3) + line(5.5, "fsync(3)", ms=30) + wait(40) + wait(42))
    (loop,) = recording.loops
    assert sum(loop.counts.values()) == 4
    assert durations_ms(recording) == [35]
    assert recording.stalls[0].calls[0].call.name == "fsync"
    assert recording.stalls[0].calls[0].duration_ns == 30 * MS
    assert (loop.kind, loop.tid) == ("epoll", 100)


@pytest.mark.parametrize("pid", ["100   ", "", "[pid   100] "], ids=["-o", "one process", "stderr"])
def test_thread_numbers_in_every_place(pid: str, tmp_path: Path) -> None:
    text = "".join(wait(2 * n, pid=pid) for n in range(3)) + line(5.5, "fsync(3)", ms=30, pid=pid) + wait(40, pid=pid)
    recording = read(tmp_path, text)
    assert len(recording.loops) == 1
    assert durations_ms(recording) == [35]


def test_the_first_process_keeps_its_loop_when_strace_begins_to_print_numbers(tmp_path: Path) -> None:
    text = wait(0, pid="") + wait(2, pid="") + "strace: Process 101 attached\n"
    text += line(3, "getpid()", pid="[pid   101] ") + wait(4, pid="[pid   100] ") + wait(6, pid="[pid   100] ")
    (loop,) = read(tmp_path, text).loops
    assert (loop.tid, sum(loop.counts.values())) == (100, 3)


def test_one_file_of_ff_has_its_number_in_the_name(tmp_path: Path) -> None:
    (loop,) = read(tmp_path, "".join(wait(2 * n, pid="") for n in range(4)), "trace.4242").loops
    assert (loop.tid, sum(loop.counts.values())) == (4242, 3)


def test_stamps_of_the_day_cross_midnight(tmp_path: Path) -> None:
    text = "1 23:59:59.990000 epoll_wait(7, [], 2, -1) = 1 <0.001000>\n"
    text += "1 00:00:00.011000 epoll_wait(7, [], 2, -1) = 1 <0.001000>\n"
    text += "1 00:00:00.013000 epoll_wait(7, [], 2, -1) = 0 <0.0>\n"
    assert durations_ms(read(tmp_path, text)) == [20]


def test_relative_stamps_add_up(tmp_path: Path) -> None:
    text = "1      0.000000 epoll_wait(7, [], 2, -1) = 1 <0.001000>\n1      0.002000 fsync(3) = 0 <0.019000>\n"
    text += "1      0.020000 epoll_wait(7, [], 2, -1) = 1 <0.001000>\n"
    text += "1      0.001500 epoll_wait(7, [], 2, -1) = 1 <0.001000>\n"
    assert durations_ms(read(tmp_path, text)) == [21]


@pytest.mark.parametrize("name", ["file_server.strace-no-T.txt", "file_server.strace-whole-seconds.txt"])
def test_without_durations_or_stamps_there_are_none_and_the_reason_is_said(name: str) -> None:
    recording = ingest(TRACES / name)
    assert recording.fidelity.missing[0].what == "durations"
    assert "-T" in recording.fidelity.missing[0].why
    assert not recording.stalls
    assert not any(loop.counts for loop in recording.loops)
    assert any("iterations seen, none of them timed" in note for note in recording.notes)


def test_a_call_in_two_lines_is_one(tmp_path: Path) -> None:
    text = quick_turns(2) + "100 1700000000.004000 fsync(3 <unfinished ...>\n" + line(5, "getpid()", pid="200 ")
    text += "100 1700000000.034000 <... fsync resumed>) = 0 <0.030000>\n"
    text += "100 1700000000.040000 epoll_wait(7,  <unfinished ...>\n" + line(41, "getpid()", pid="200 ")
    text += "100 1700000000.050000 <... epoll_wait resumed>[], 2, -1) = 0 <0.010000>\n" + wait(51)
    recording = read(tmp_path, text)
    assert durations_ms(recording) == [37]
    assert [(call.call.name, call.duration_ns) for call in recording.stalls[0].calls] == [("fsync", 30 * MS)]


def test_half_a_call_ends_what_was_in_progress_and_is_counted(tmp_path: Path) -> None:
    text = quick_turns(2) + "100 1700000000.034000 <... fsync resumed>) = 0 <0.030000>\n" + wait(40) + wait(42)
    recording = read(tmp_path, text)
    assert not recording.stalls
    assert any("lack one half" in note for note in recording.notes)


def test_a_loop_that_hangs_at_the_end_is_an_unfinished_stall(tmp_path: Path) -> None:
    text = quick_turns(3) + '100 1700000000.006000 read(9, "" <unfinished ...>\n' + line(506, "getpid()", pid="200 ")
    (stall,) = read(tmp_path, text).stalls
    assert (stall.finished, stall.duration_ns / MS, stall.calls[0].call.name) == (False, 501, "read")


def test_a_wait_that_a_signal_interrupts_goes_on(tmp_path: Path) -> None:
    text = "".join(line(2 * n, "poll([{fd=3}, {fd=4}], 2, 60)", "1", 1) for n in range(12))
    text += "100 1700000000.024000 poll([{fd=3}, {fd=4}], 2, 60) = ? ERESTART_RESTARTBLOCK (Interrupted) <0.005000>\n"
    text += "100 1700000000.029100 --- SIGCONT {si_signo=SIGCONT, si_code=SI_USER} ---\n"
    text += line(30, "restart_syscall(<... resuming interrupted poll ...>)", "1", 70)
    text += line(101, "poll([{fd=3}, {fd=4}], 2, 60)", "1", 1)
    recording = read(tmp_path, text)
    assert not recording.stalls
    assert sum(recording.loops[0].counts.values()) == 13


def test_exits_end_a_process(tmp_path: Path) -> None:
    recording = read(tmp_path, quick_turns(3) + "100 1700000000.006000 +++ killed by SIGKILL +++\n")
    assert recording.processes[0].ending == "killed"
    assert recording.processes[0].ended_ns == recording.loops[0].last_ns


DESCRIPTORS = {
    ('openat(AT_FDCWD, "/srv/a \\303\\251.bin", O_RDONLY)', "9"): Resource("path", "/srv/a é.bin"),
    ('openat(AT_FDCWD</srv>, "a", O_RDONLY)', "9</srv/a>"): Resource("path", "/srv/a"),
    ('accept4(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("10.0.0.9")}, [16], 0)', "9"): Resource(
        "peer", "10.0.0.9:80"
    ),
    ("pipe2([9, 10], O_CLOEXEC)", "0"): Resource("pipe", "pipe"),
    ("eventfd2(0, 0)", "9"): Resource("other", "eventfd"),
}


@pytest.mark.parametrize("made", DESCRIPTORS, ids=lambda made: made[0].partition("(")[0])
def test_descriptors_are_rebuilt(made: tuple[str, str], tmp_path: Path) -> None:
    text = quick_turns(3) + line(5.5, *made) + line(6, "read(9, ...)", ms=30) + wait(40) + wait(42)
    assert touched(read(tmp_path, text)) == [DESCRIPTORS[made]]


def test_text_that_names_descriptors_is_believed(tmp_path: Path) -> None:
    text = line(0, "accept4(3<TCP:[127.0.0.1:43]>, {...}, [16], 0)", "9<TCP:[127.0.0.1:43->127.0.0.1:54]>")
    text += quick_turns(3) + line(6, "recvfrom(9<TCP:[127.0.0.1:43->127.0.0.1:54]>, ...)", ms=30)
    text += line(36.5, "read(12</srv/a>, ...)", ms=2) + wait(40) + wait(42)
    (stall,) = read(tmp_path, text).stalls
    assert [call.call.resource for call in stall.calls] == [
        Resource("peer", "127.0.0.1:54"),
        Resource("path", "/srv/a"),
    ]


def test_connect_dup_and_close_are_followed(tmp_path: Path) -> None:
    text = quick_turns(3) + line(5.1, "socket(AF_INET6, SOCK_STREAM, 0)", "9")
    address = '{sa_family=AF_INET6, sin6_port=htons(6379), inet_pton(AF_INET6, "::1", &sin6_addr)}'
    text += line(5.2, f"connect(9, {address}, 28)") + line(5.3, "dup(9)", "11") + line(5.4, "close(9)")
    text += line(6, 'recvfrom(11, "", 1)', ms=30) + line(37, 'recvfrom(9, "", 1)', ms=20) + wait(60) + wait(62)
    (stall,) = read(tmp_path, text).stalls
    slow = [call.call.resource for call in stall.calls if call.duration_ns >= MS]
    assert slow == [Resource("peer", "[::1]:6379"), None]


def test_threads_share_descriptors_and_forked_children_copy_them(tmp_path: Path) -> None:
    text = line(0, 'openat(AT_FDCWD, "/srv/log", O_WRONLY)', "5")
    text += line(1, "clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD}, 88)", "101")
    text += line(2, "clone(child_stack=NULL, flags=SIGCHLD)", "102") + line(3, "close(5)")
    for pid in ("101", "102"):
        text += "".join(wait(at, pid=f"{pid} ") for at in (10, 12)) + line(14, 'write(5, "", 1)', ms=30, pid=f"{pid} ")
        text += wait(50, pid=f"{pid} ") + wait(52, pid=f"{pid} ")
    assert touched(read(tmp_path, text)) == [None, Resource("path", "/srv/log")]


def test_a_second_epoll_inside_a_handler_is_a_blocking_call(tmp_path: Path) -> None:
    recording = read(tmp_path, quick_turns(3) + wait(6, 25, descriptor=9) + wait(40) + wait(42))
    assert len(recording.loops) == 1
    assert durations_ms(recording) == [35]
    assert recording.stalls[0].calls[0].call.name == "epoll_wait"


def test_a_pool_and_a_client_that_polls_one_socket_are_no_loops(tmp_path: Path) -> None:
    pool = "".join(line(2 * n, "futex(0x7f, FUTEX_WAIT, 0, NULL)", ms=1, pid="200 ") for n in range(30))
    client = "".join(line(2 * n, "poll([{fd=5, events=POLLIN}], 1, 30000)", "1", 1, "300 ") for n in range(30))
    recording = read(tmp_path, quick_turns(30) + pool + client)
    assert [loop.tid for loop in recording.loops] == [100]
    assert any("2 threads ran no event loop" in note for note in recording.notes)


def test_many_short_calls_are_summed_by_what_they_touched(tmp_path: Path) -> None:
    stats = "".join(line(6 + n, 'newfstatat(AT_FDCWD, "/srv/x", {...}, 0)', ms=0.9) for n in range(20))
    (stall,) = read(tmp_path, quick_turns(3) + stats + wait(30) + wait(32)).stalls
    (call,) = stall.calls
    assert (call.calls, call.duration_ns, call.call.resource) == (20, 18 * MS, Resource("path", "/srv/x"))


def test_waits_without_a_timeout_are_counted(tmp_path: Path) -> None:
    text = "".join(wait(2 * n, timeout=0 if n % 2 else -1) for n in range(10))
    assert read(tmp_path, text).loops[0].zero_waits == 5


def test_a_torn_line_is_counted_and_times_nothing(tmp_path: Path) -> None:
    text = quick_turns(3) + "100 1700000000.00550 epo" + "\n" + wait(60) + wait(62)
    recording = read(tmp_path, text)
    assert not recording.stalls
    assert "1 line could not be read and did not count" in recording.notes


def test_a_stamp_far_ahead_is_no_stall(tmp_path: Path) -> None:
    recording = read(tmp_path, quick_turns(3) + wait(9_000_000) + quick_turns(3, from_ms=8))
    assert not recording.stalls
    assert any("the clock went backwards" in note for note in recording.notes)


def test_strace_inflation_is_told(tmp_path: Path) -> None:
    recording = ingest(TRACES / "file_server.strace.txt")
    assert any("µs a call" in note for note in recording.notes)


def test_reading_in_small_pieces_changes_nothing() -> None:
    path = TRACES / "pool.strace.txt"
    head, data = Source(path).head, path.read_bytes()
    whole, pieces = Reader(10 * MS, head), Reader(10 * MS, head)
    whole.take(data)
    for text in data.splitlines(keepends=True):
        pieces.take(text)
    assert [vars_of(thread) for thread in whole.rebuild.threads] == [vars_of(t) for t in pieces.rebuild.threads]


def vars_of(thread: object) -> list[object]:
    return [getattr(thread, name) for name in ("tid", "key", "iterations", "counts", "zero_waits", "stalls")]


def test_a_wait_hidden_in_another_line_makes_no_stall(tmp_path: Path) -> None:
    """Two tracers that write into one file leave lines within lines."""
    hidden = "100 1700000000.020000 epoll_wait(7, [], 2, -1) = 1 <0.001000>"
    text = quick_turns(3) + f"100 1700000000.007000 write(8, {hidden}\n" + wait(40) + wait(42)
    recording = read(tmp_path, text)
    assert not recording.stalls
    assert any("1 stall left out" in note for note in recording.notes)


def test_halves_of_two_calls_are_not_joined_across_a_line_that_cannot_be_read(tmp_path: Path) -> None:
    text = quick_turns(3) + "100 1700000000.010000 epoll_wait(7,  <unfinished ...>\n"
    text += "100 1700000000.020000 <... epoll_wait resu\n" + "100 1700000000.05 epoll_wa\n"
    text += "100 1700000000.060000 <... epoll_wait resumed>[], 2, -1) = 1 <0.005000>\n" + wait(80) + wait(82)
    recording = read(tmp_path, text)
    assert not recording.stalls  # not one from 15 ms to 80 ms: that wait returned at 60 ms
    assert "2 lines could not be read and did not count" in recording.notes


def test_a_wait_after_an_unread_line_is_not_the_loops_where_another_is_waited_for(tmp_path: Path) -> None:
    nested = "".join(wait(4 + 40 * n, 30, 9) + wait(36 + 40 * n, 2) for n in range(8))
    assert durations_ms(read(tmp_path, wait(0) + nested)) == [35, *[38] * 7]
    recording = read(tmp_path, line(0, "getpid()")[:30] + "\n" + nested)
    assert not recording.stalls
    assert not recording.loops[0].counts


def test_a_trace_of_which_a_tenth_is_unread_is_no_evidence(tmp_path: Path) -> None:
    text = quick_turns(90) + "100 1700000000.2 epo\n" * 10
    assert "evidence" in [missing.what for missing in read(tmp_path, text).fidelity.missing]
    assert "evidence" not in [missing.what for missing in read(tmp_path, text[:-21]).fidelity.missing]


def test_a_last_line_that_breaks_off_is_said_to(tmp_path: Path) -> None:
    text = quick_turns(90)
    notes = read(tmp_path, text + wait(190)[:40]).notes
    assert "the last line breaks off and did not count: the trace was still being written, or was cut" in notes
    both = read(tmp_path, text[:-5] + "\n" + wait(190)[:40]).notes
    assert any("or was cut; 1 other line could not be read, and did not count either" in note for note in both)
    assert not any("breaks off" in note for note in read(tmp_path, text[:-1]).notes)
