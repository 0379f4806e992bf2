"""``stallscope analyze`` as people run it: the file in, the report out, errors as one sentence and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stallscope.recording.writer import Writer
from tests.analysis.recordings import MS, S, blocked, path, recording, stack

COMMAND = [sys.executable, "-c", "from stallscope.cli import main; main()"]


def stallscope(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with a hundred reads of 50 ms in one loop."""
    file = tmp_path_factory.mktemp("recordings") / "x.stall"
    stalls = [blocked(50 * MS, path("read", f"/data/{k}.bin"), stack(20), k * 100 * MS) for k in range(120)]
    made = recording(stalls)
    (process,), (loop,) = made.processes, made.loops
    writer = Writer(file, source="stallscope", threshold_ns=10 * MS, started_ns=0, started_wall_s=1.0)
    writer.process(process.pid, process.parent_pid, process.program, process.runtime, process.started_ns)
    writer.loop(process.id, loop.tid, loop.kind, loop.name, loop.opened_ns)
    writer.histogram(loop.id, 60 * S, loop.counts)
    writer.loop_seen(loop.id, 60 * S, 0)
    for stall in stalls:
        writer.stall(stall)
    writer.close(60 * S)
    return file


def test_the_report_names_the_line(stalled: Path) -> None:
    done = stallscope("analyze", stalled)
    assert (done.returncode, done.stderr) == (0, "")
    assert "bimodal" in done.stdout
    assert "server.py:20" in done.stdout
    assert "read(/data/*.bin)" in done.stdout
    assert "\x1b" not in done.stdout


def test_json_lists_the_longest_hundred_or_all(stalled: Path) -> None:
    found = json.loads(stallscope("analyze", stalled, "--json").stdout)
    assert (found["schema"], found["recording"]["path"]) == (1, str(stalled))
    assert found["culprits"][0]["location"]["line"] == 20
    assert len(found["stalls"]) == 100
    assert len(json.loads(stallscope("analyze", stalled, "--json", "--all-stalls").stdout)["stalls"]) == 120


def test_another_threshold_judges_again(stalled: Path) -> None:
    found = json.loads(stallscope("analyze", stalled, "--json", "--threshold", "60ms").stdout)
    assert (found["stalls"], found["culprits"], found["recording"]["threshold_ms"]) == ([], [], 60.0)
    assert found["recording"]["fidelity"]["missing"] == []
    lower = json.loads(stallscope("analyze", stalled, "--json", "--threshold", "100us").stdout)
    assert lower["loops"][0]["stalls"]["count"] > 1000
    assert "shorter than 10 ms" in lower["recording"]["fidelity"]["missing"][0]["what"]


def test_every_stall_on_request(stalled: Path) -> None:
    text = stallscope("analyze", stalled, "--all-stalls").stdout
    assert text.count("Server.handle: blocking-syscall 50 ms") == 120


@pytest.mark.parametrize("threshold", ["0", "-1ms", "10 parsecs", "nan", "inf", ""])
def test_no_threshold_is_one_sentence(stalled: Path, threshold: str) -> None:
    done = stallscope("analyze", stalled, f"--threshold={threshold}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"stallscope: the threshold {threshold!r} ")
    assert done.stderr.count("\n") == 1


def test_an_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "foreign.stall").write_bytes(b"\x7fELF" + bytes(200))
    (tmp_path / "empty.stall").touch()
    for name in ("foreign.stall", "empty.stall", "none.stall", "."):
        done = stallscope("analyze", tmp_path / name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("stallscope: ")
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


def test_wrong_usage_exits_with_2() -> None:
    for arguments in (("analyze",), ("analyze", "x", "--no-such"), ("no-such-command",)):
        done = stallscope(*arguments)
        assert done.returncode == 2
        assert "Usage:" in done.stderr
        assert done.stdout == ""


def test_a_reader_that_goes_away_is_no_error(stalled: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "analyze", stalled, "--json", "--all-stalls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 0


def test_a_terminal_without_unicode_gets_a_report(stalled: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "analyze", stalled], capture_output=True, check=False, env={"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"bimodal" in done.stdout


def test_help_does_not_load_what_it_does_not_need() -> None:
    heavy = "{'rich.console', 'hdrh.histogram', 'sqlite3', 'stallscope.analysis.examine'}"
    program = f"import sys; from stallscope.cli.app import app; app(); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_what_if_predicts_what_is_left(stalled: Path) -> None:
    done = stallscope("analyze", stalled, "--what-if", "culprit=1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "without culprit 1" in done.stdout
    found = json.loads(stallscope("analyze", stalled, "--what-if", "cause=blocking-syscall", "--json").stdout)
    assert found["prediction"]["stalls"]["count"] == 0
    missing = stallscope("analyze", stalled, "--what-if", "culprit=7")
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (2, "", 1)


def test_verbose_lists_the_causes(stalled: Path) -> None:
    assert "share      time   stalls   the loop" in stallscope("analyze", stalled, "-v").stdout
    assert "share      time   stalls   the loop" not in stallscope("analyze", stalled).stdout


def test_a_recording_compared_with_itself_is_equal(stalled: Path) -> None:
    done = stallscope("compare", stalled, stalled)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hold the same" in done.stdout
    found = json.loads(stallscope("compare", stalled, stalled, "--json", "--what-if", "culprit=1").stdout)
    assert found["equal"] is True
    assert found["score"]["right"] is False
