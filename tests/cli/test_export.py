"""``stallscope export`` as people run it: real recordings out, and each bad wish one sentence and its exit code."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stallscope.analysis.examine import examine
from stallscope.recording import store
from stallscope.recording.reader import read
from tests.analysis.recordings import MS, blocked, loop, path, recording, stack
from tests.end_to_end.observing import observed, write

COMMAND = [sys.executable, "-m", "stallscope", "export"]
TRACES = Path(__file__).parents[2] / "samples" / "traces"
FORMATS = ("hlog", "chrome", "folded", "csv")
PROGRAM = """
    import asyncio, time

    def block():
        time.sleep(0.03)

    async def handle():
        for _ in range(60):
            await asyncio.sleep(0)
        for _ in range(12):
            block()
            await asyncio.sleep(0.001)

    asyncio.run(handle())
"""


def export(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", check=False, timeout=60)


def analyzed(file: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "stallscope", "analyze", str(file), "--json"]
    (found,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["loops"]
    return dict(found)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of a real program that stalls twelve times."""
    directory = tmp_path_factory.mktemp("recorded")
    write(directory, "program.py", PROGRAM)
    assert observed(directory, "program.py").code == 0
    return directory / "x.stall"


@pytest.fixture(scope="module")
def two_loops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of two loops, the first of which stalled once."""
    file = tmp_path_factory.mktemp("two") / "two.stall"
    stall = blocked(50 * MS, path("read", "/data/7.bin"), stack(20))
    store.save(recording([stall], [loop([MS, stall.duration_ns]), loop([2 * MS], loop_id=2)]), file)
    return file


def test_an_hlog_holds_what_the_recording_does(recorded: Path, tmp_path: Path) -> None:
    done = export(recorded, "--to", "hlog")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "x.hlog").write_text(done.stdout)
    own, back = analyzed(recorded), analyzed(tmp_path / "x.hlog")
    for key in ("iterations", "shape"):
        assert own[key] == back[key], key
    assert _moved(own["log2"], back["log2"]) <= _near_an_edge(recorded)
    assert isinstance(own["wall_s"], float)
    assert back["wall_s"] == pytest.approx(own["wall_s"], abs=0.002)
    assert dict(back["stalls"])["count"] == dict(own["stalls"])["count"]  # type: ignore[call-overload]


def _moved(rows: object, others: object) -> int:
    """How many iterations are in another row."""
    counts = [{row["lo_us"]: row["count"] for row in one} for one in (rows, others) if isinstance(one, list)]
    return sum(max(0, counts[0].get(lo, 0) - counts[1].get(lo, 0)) for lo in {*counts[0], *counts[1]})


def _near_an_edge(recorded: Path) -> int:
    """How many stalls are as near to a power of two microseconds as a bucket of the recording is wide."""
    lengths_us = [stall.duration_ns / 1e3 for stall in read(recorded).stalls]
    return sum(any(abs(us - 2**power) <= us / 30 for power in range(30)) for us in lengths_us)


def test_a_chrome_trace_holds_every_stall_with_its_call(recorded: Path) -> None:
    events = json.loads(export(recorded, "--to", "chrome").stdout)["traceEvents"]
    stalls = [event for event in events if event.get("cat") == "stallscope,stall"]
    assert len(stalls) == len(read(recorded).stalls) >= 12
    sleeping = [event for event in stalls if event["args"]["cause"] == "blocking-syscall"]
    assert len(sleeping) >= 12
    assert {Path(event["args"]["at"]).name for event in sleeping} == {"program.py:5"}
    assert {event["name"] for event in sleeping} == {"handle"}


def test_folded_stacks_hold_all_stall_time(recorded: Path) -> None:
    lines = export(recorded, "--to", "folded").stdout.splitlines()
    total_us = sum(stall.duration_ns for stall in read(recorded).stalls) / 1000
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == pytest.approx(total_us, abs=len(lines))
    root, *way, leaf = lines[0].rpartition(" ")[0].split(";")
    assert (root, way[-1].split(" ")[0], leaf.split(" ")[0].strip("[]")) == ("handle", "block", analyzed_call(recorded))


def analyzed_call(file: Path) -> str:
    return str(examine(read(file)).culprits[0].syscall)


def test_csv_rows_are_the_stalls(recorded: Path) -> None:
    rows = list(csv.DictReader(export(recorded, "--to", "csv").stdout.splitlines()))
    stalls = sorted(read(recorded).stalls, key=lambda stall: stall.start_ns)
    assert [float(row["duration_ms"]) for row in rows] == [stall.duration_ns / 1e6 for stall in stalls]
    assert all(row["time"].endswith("Z") for row in rows)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_the_same_as_stdout(form: str, recorded: Path, tmp_path: Path) -> None:
    done = export(recorded, "--to", form, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"stallscope: wrote {tmp_path / 'out'}")
    with (
        (tmp_path / "out").open(newline="") as file,
        subprocess.Popen([*COMMAND, recorded, "--to", form], stdout=subprocess.PIPE) as running,
    ):
        assert running.stdout is not None
        assert file.read().encode() == running.stdout.read()


def test_a_dash_is_stdout(recorded: Path, tmp_path: Path) -> None:
    asked = export(recorded, "--to", "csv", "-o", "-", cwd=tmp_path)
    assert asked.stdout == export(recorded, "--to", "csv").stdout
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    done = export(recorded, "--to", "csv", "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--force" in done.stderr
    assert (tmp_path / "out").read_text() == "precious"
    assert export(recorded, "--to", "csv", "-o", tmp_path / "out", "--force").returncode == 0
    assert (tmp_path / "out").read_text().startswith("time,")
    assert "what is to be exported" in export(recorded, "--to", "csv", "-o", recorded, "--force").stderr
    assert read(recorded).stalls


def test_one_loop_alone(two_loops: Path) -> None:
    first, second = (export(two_loops, "--to", "csv", "--loop", number) for number in "12")
    assert first.stdout.count("\n") == 2
    assert (second.returncode, second.stdout.count("\n")) == (0, 1)
    assert second.stderr == "stallscope: no stall of 10 ms or more\n"
    assert "Tag=" in export(two_loops, "--to", "hlog").stdout
    assert "Tag=" not in export(two_loops, "--to", "hlog", "--loop", "2").stdout
    names = export(two_loops, "--to", "chrome", "--loop", "2").stdout
    assert "loop 2" in names
    assert "loop 1" not in names


def test_stalls_without_details_are_told(tmp_path: Path) -> None:
    stall = blocked(50 * MS, path("read", "/data/7.bin"), stack(20))
    store.save(recording([stall], [loop([50 * MS] * 4)]), tmp_path / "x.stall")
    done = export(tmp_path / "x.stall", "--to", "folded")
    assert done.returncode == 0
    assert done.stderr == "stallscope: left out, since the recording has their number and no details: 3 stalls\n"


@pytest.mark.parametrize(
    ("wish", "code", "words"),
    [
        (("{tmp}/none.stall", "--to", "csv"), 2, "does not exist"),
        (("{tmp}/text", "--to", "csv"), 2, "in no format that stallscope knows"),
        (("{tmp}", "--to", "csv"), 2, "is a directory"),
        (("{two}", "--to", "xml"), 2, "choose one of hlog, chrome, folded, csv"),
        (("{two}", "--to", "csv", "--loop", "7"), 2, "there is no loop 7 in {two}: its loops are 1, 2"),
        (("{two}", "--to", "csv", "--threshold", "10"), 2, "has no unit"),
        (("{two}", "--to", "csv", "-o", "{tmp}/no/such"), 2, "cannot write {tmp}/no/such: no such file or directory"),
        (("{two}", "--to", "csv", "-o", "{tmp}"), 2, "is a directory"),
        (("{two}", "--to", "csv", "-o", "/dev/full"), 2, "no space left on device"),
        (("{traces}/delays.hlog", "--to", "csv"), 4, "--to hlog"),
        (("{traces}/delays.hlog", "--to", "chrome"), 4, "the details of none"),
        (("{traces}/../dropbox_funclatency.txt", "--to", "folded"), 4, "counted 850 stalls"),
        (("{traces}/seastar.log", "--to", "hlog"), 4, "--to csv, chrome or folded"),
        (("{tmp}/empty.stall", "--to", "hlog"), 4, "holds no iteration"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_sentence(
    wish: tuple[str, ...], code: int, words: str, two_loops: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("nothing that anybody recorded\n")
    store.save(recording([], [loop([])]), tmp_path / "empty.stall")
    where = {"tmp": tmp_path, "two": two_loops, "traces": TRACES}
    done = export(*(word.format(**where) for word in wish))
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("stallscope: ")
    assert done.stderr.count("\n") == 1
    assert words.format(**where) in done.stderr


def test_foreign_traces_are_exported_directly() -> None:
    done = export(TRACES / "nginx.strace.txt", "--to", "csv")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert {(row["call"], row["resource"]) for row in rows} == {("write", "/tmp/web/acc.fifo")}
    assert done.stderr == ""


def test_what_analyze_saved_is_exported_like_the_trace_itself(tmp_path: Path) -> None:
    trace = TRACES / "nginx.strace.txt"
    save = [sys.executable, "-m", "stallscope", "analyze", str(trace), "--save", str(tmp_path / "x.stall")]
    subprocess.run(save, capture_output=True, check=True)
    for form in ("csv", "folded"):
        assert export(tmp_path / "x.stall", "--to", form).stdout == export(trace, "--to", form).stdout
    (tmp_path / "x.hlog").write_text(export(tmp_path / "x.stall", "--to", "hlog").stdout)
    own, back = analyzed(trace), analyzed(tmp_path / "x.hlog")
    assert (own["log2"], own["wall_s"]) == (back["log2"], pytest.approx(back["wall_s"], abs=0.002))


def test_without_a_stall_there_is_no_folded_stack(two_loops: Path) -> None:
    done = export(two_loops, "--to", "folded", "--loop", "2")
    assert (done.returncode, done.stdout) == (0, "")


def test_coarse_buckets_are_told() -> None:
    done = export(TRACES / "../dropbox_funclatency.txt", "--to", "hlog")
    assert done.returncode == 0
    assert "coarse buckets" in done.stderr


def test_a_full_disk_on_stdout_is_one_sentence(two_loops: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, two_loops, "--to", "csv"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "stallscope: cannot write to stdout: no space left on device; what is there is cut short\n"


def test_a_reader_that_goes_away_is_no_error(recorded: Path) -> None:
    receiving, sending = os.pipe()
    os.close(receiving)
    done = subprocess.run(
        [*COMMAND, recorded, "--to", "chrome"], stdout=sending, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(sending)
    assert (done.returncode, done.stderr) == (0, "")
