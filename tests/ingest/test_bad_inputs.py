"""What a user may give to `analyze` by mistake or bad luck: one clear sentence, or a report that says what is missing.

In a process of its own, as the user runs it: the exit code is 0 for a report and 2 for what cannot be read.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from stallscope.errors import UnreadableInput
from stallscope.ingest.recognise import FORMATS, ingest
from stallscope.ingest.source import Source
from stallscope.recording.nouns import Recording
from tests.ingest.expected import TRACES

STRACE = (TRACES / "redis.strace.txt").read_bytes()
PERF_TRACE = (TRACES / "redis.perf-trace.txt").read_bytes()
PERF_SCRIPT = (TRACES / "file_server.perf-script-raw.txt").read_bytes()
TEXTS = {"strace": STRACE, "perf-trace": PERF_TRACE, "perf-script": PERF_SCRIPT}
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


def analyze(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stallscope", "analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


def refused(*arguments: str | Path, **more: Any) -> str:
    """The one sentence with which an input is refused."""
    done = analyze(*arguments, **more)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stallscope: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def read(tmp_path: Path, data: bytes, form: str | None = None) -> Recording:
    path = tmp_path / "trace"
    path.write_bytes(data)
    return ingest(path, format=form)


def lengths(recording: Recording) -> list[int]:
    return sorted(stall.duration_ns for stall in recording.stalls)


@pytest.mark.parametrize("format", [[], ["--format", "strace"]], ids=["recognised", "forced"])
def test_a_directory_a_missing_file_and_an_empty_one_are_refused(format: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert "directory" in refused(tmp_path, *format).lower()
    assert re.search("does not exist|No such file", refused(tmp_path / "absent", *format))
    if not format:
        assert "or a trace" in refused(tmp_path, *format)
        assert "is empty" in refused(tmp_path / "empty", *format)
        assert "device" in refused(os.devnull, *format)


UNPRIVILEGED = """
import os, sys
from stallscope.cli import main
try:
    main()  # so that all modules are loaded
except SystemExit:
    os.chmod(sys.argv[2], 0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    main()
"""


def test_an_unreadable_file_is_refused_in_our_own_words() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace")
        path.write_bytes(STRACE)
        path.parent.chmod(0o755)
        done = subprocess.run([sys.executable, "-c", UNPRIVILEGED, "analyze", path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"stallscope: cannot read {path}: permission denied\n"


def test_standard_input_that_is_closed_or_empty_is_refused() -> None:
    assert "is empty" in refused("-", stdin=subprocess.DEVNULL)
    assert "is closed" in refused("-", preexec_fn=lambda: os.close(0))


def test_standard_input_that_ends_early_is_read_so_far(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stallscope", "analyze", "-"], input=STRACE[:9000], capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert b"the last line breaks off" in done.stdout


def test_a_fifo_is_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", f"exec cat '{TRACES / 'redis.strace.txt'}' > '{fifo}'"]):
        done = analyze("--json", fifo)
    assert json.loads(done.stdout)["loops"][0]["stalls"]["count"] == 8


def test_a_closed_standard_output_is_no_traceback() -> None:
    done = analyze(TRACES / "redis.strace.txt", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_is_emptied_while_it_is_opened_is_not_called_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stallscope.ingest import source

    path, size = tmp_path / "trace", source._size
    path.write_bytes(STRACE)

    def size_then_empty(raw: Any) -> int | None:
        found = size(raw)
        os.truncate(path, 0)
        return found

    monkeypatch.setattr(source, "_size", size_then_empty)
    with pytest.raises(UnreadableInput, match="emptied while it was opened"):
        Source(path)


@each_text
def test_colours_line_ends_and_marks_change_nothing(text: bytes, tmp_path: Path) -> None:
    whole = read(tmp_path, text)
    coloured = re.sub(rb"(?m)^(.{12})(.*)$", b"\x1b[1;32m\\1\x1b[m\\2", text)
    assert coloured != text
    for other in (coloured, text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + text):
        found = read(tmp_path, other)
        assert (found.loops, found.stalls) == (whole.loops, whole.stalls)


@each_text
def test_utf_16_is_refused_with_and_without_its_mark(text: bytes, tmp_path: Path) -> None:
    for coding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(UnreadableInput, match="UTF-16"):
            read(tmp_path, text.decode().encode(coding))


def test_zeros_are_binary(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="is binary"):
        read(tmp_path, bytes(100_000))


@each_text
def test_zeros_inside_are_lines_that_cannot_be_read(text: bytes, tmp_path: Path) -> None:
    lines = text.splitlines(keepends=True)
    found = read(tmp_path, b"".join([*lines[:90], b"\0" * 512 + b"\n", *lines[90:]]))
    assert any("1 line could not be read" in note for note in found.notes)
    assert set(lengths(found)) <= set(lengths(read(tmp_path, text)))


@each_text
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress], ids=["gz", "xz", "zst"])
def test_a_packed_trace_that_breaks_off_holds_no_stall_of_its_own(
    pack: Callable[[bytes], bytes], text: bytes, tmp_path: Path
) -> None:
    whole, packed = lengths(read(tmp_path, text * 16)), pack(text * 16)
    found = read(tmp_path, packed[:-5])
    assert not found.complete
    assert set(lengths(found)) <= set(whole)
    assert lengths(found)
    with pytest.raises(UnreadableInput, match="broken before its first line"):
        read(tmp_path, packed[:20])


def test_a_text_that_breaks_off_in_a_character_is_read_up_to_there(tmp_path: Path) -> None:
    last = STRACE.splitlines()[60].split(b" ")[:2]
    found = read(tmp_path, b"\n".join(STRACE.splitlines()[:60]) + b"\n" + b" ".join(last) + b' write(1, "caf\xc3')
    assert any("breaks off" in note for note in found.notes)


def test_a_line_without_an_end_is_cut_in_constant_memory(tmp_path: Path) -> None:
    found = read(tmp_path, STRACE + b"x" * 20_000_000)
    assert lengths(found) == lengths(read(tmp_path, STRACE))
    with pytest.raises(UnreadableInput, match="in no format"):
        read(tmp_path, b'16809 1700000000.000000 write(1, "' + b"x" * 20_000_000)


@each_text
def test_of_two_traces_in_one_file_nobody_takes_shares_of_time(text: bytes, tmp_path: Path) -> None:
    once, path = read(tmp_path, text), tmp_path / "twice"
    path.write_bytes(text + text)
    twice = ingest(path)
    assert set(lengths(twice)) <= set(lengths(once))
    assert any("two traces in the file" in note for note in twice.notes)
    report = json.loads(analyze("--json", path).stdout)
    assert report["loops"][0]["utilization"] is None
    assert report["loops"][0]["stalls"]["wall_share"] is None


def moved(text: bytes, stamp: Callable[[int, bytes], bytes], after: int = 300) -> bytes:
    """strace's text with other stamps from a line on."""
    lines = text.splitlines(keepends=True)
    changed = [re.sub(rb"(\d{10})(\.\d{6})", lambda m: stamp(int(m[1]), m[2]), line, count=1) for line in lines[after:]]
    return b"".join([*lines[:after], *changed])


def of_day(seconds: int) -> bytes:
    return b"%02d:%02d:%02d" % (seconds // 3600 % 24, seconds // 60 % 60, seconds % 60)


@pytest.mark.parametrize(
    "stamp",
    [
        lambda seconds, fraction: b"%d%s" % (seconds - 5, fraction),
        lambda seconds, fraction: of_day(seconds),
        lambda seconds, fraction: of_day(seconds) + fraction,
    ],
    ids=["set back", "-ttt, then -t", "-ttt, then -tt"],
)
def test_a_clock_that_changes_invents_no_stall(stamp: Callable[[int, bytes], bytes], tmp_path: Path) -> None:
    found = read(tmp_path, moved(STRACE, stamp))
    assert set(lengths(found)) <= set(lengths(read(tmp_path, STRACE)))
    assert any("the clock went backwards" in note for note in found.notes)


def test_a_number_that_a_second_process_has_again_is_no_stall(tmp_path: Path) -> None:
    wait = "70 17000%05d.000000 epoll_wait(5, [], 8, 1) = 0 <0.999000>\n"
    text = "".join(wait % second for second in range(100, 110))
    text += "70 1700000110.000000 +++ exited with 0 +++\n"
    text += "71 1700000300.000000 clone(child_stack=NULL, flags=SIGCHLD) = 70 <0.000100>\n"
    text += "".join(wait % second for second in range(500, 510))
    found = read(tmp_path, text.encode())
    assert sum(found.loops[0].counts.values()) == 18
    assert not found.stalls


@each_text
def test_decimal_commas_are_named(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match=r"decimal commas.*LC_ALL=C"):
        read(tmp_path, re.sub(rb"(\d)\.(\d{3,6})(?=[ :>]| ms)", rb"\1,\2", text))


@pytest.mark.parametrize("column", [b" [00007f3152b1dad7]", b" [  59]", b" [????????????????]"])
def test_a_column_of_strace_that_is_not_read_is_named(column: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="-i or -n"):
        read(tmp_path, re.sub(rb"(?m)^(\d+ \S+)(?= )", rb"\1" + column, STRACE))


def test_stacks_between_the_calls_are_passed_over(tmp_path: Path) -> None:
    whole = read(tmp_path, STRACE)
    found = read(
        tmp_path, STRACE.replace(b"\n", b"\n > /usr/lib/libc.so.6(read+0xd) [0x1]\n > unexpected_backtracing_error\n")
    )
    assert (found.loops, found.stalls) == (whole.loops, whole.stalls)
    whole = read(tmp_path, PERF_TRACE)
    found = read(tmp_path, PERF_TRACE.replace(b"\n", b"\n" + b" " * 39 + b"read (/usr/lib/libc.so.6)\n"))
    assert (found.loops, found.stalls) == (whole.loops, whole.stalls)


def test_the_sums_behind_a_trace_are_no_thread(tmp_path: Path) -> None:
    sums = (
        b"% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----\n 52.1 0.01 12 8 read\n"
    )
    found = read(tmp_path, STRACE + sums)
    assert lengths(found) == lengths(read(tmp_path, STRACE))
    assert not any(re.search(r"\b0 \(", note) for note in found.notes)
    sums = (TRACES / "file_server.perf-trace-summary.txt").read_bytes()
    assert lengths(read(tmp_path, PERF_TRACE + sums)) == lengths(read(tmp_path, PERF_TRACE))


def test_a_trace_without_its_quick_calls_or_without_those_that_returned_is_refused(tmp_path: Path) -> None:
    slow = [
        line for line in PERF_TRACE.splitlines(keepends=True) if re.search(rb"\( *(?:[5-9]|\d\d+)\.\d{3} ms\)", line)
    ]
    with pytest.raises(UnreadableInput, match=r"no call under .* --duration"):
        read(tmp_path, b"".join(slow * 3))
    failed = [line for line in STRACE.splitlines(keepends=True) if b") = -1 E" in line or b")  = -1 E" in line]
    with pytest.raises(UnreadableInput, match="only calls that failed"):
        read(tmp_path, b"".join(failed * 30))


@pytest.mark.parametrize("name", FORMATS)
def test_a_wrong_format_that_is_forced_is_refused(name: str, tmp_path: Path) -> None:
    for form, text in TEXTS.items():
        if name != form:
            with pytest.raises(UnreadableInput):
                read(tmp_path, text, name)


def test_a_wrong_format_names_the_right_one() -> None:
    assert "it looks like strace" in refused("--format", "hlog", TRACES / "redis.strace.txt")
    assert "choose one of" in refused("--format", "nonsense", TRACES / "redis.strace.txt")
