"""``attach --live`` and ``top``, on a real terminal against a real program: what they show, and how they leave both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stallscope.recording.reader import read
from tests.attach.targets import PATIENCE_S, Target, running
from tests.attach.test_command import attached, ended
from tests.cli.terminal import Terminal, terminal

pytestmark = pytest.mark.usefixtures("ptrace")

TOP = (sys.executable, "-m", "stallscope", "top")


@pytest.fixture
def target() -> Iterator[Target]:
    with running(sys.executable, "ticking") as started:
        yield started


@pytest.fixture
def shown(target: Target, tmp_path: Path) -> Iterator[Terminal]:
    with terminal("top", str(target.pid), cwd=tmp_path) as one:
        yield one


def test_shows_modes_pace_and_culprits_and_quits(target: Target, shown: Terminal, tmp_path: Path) -> None:
    text = "\n".join(shown.until_text("ticking  "))
    assert f"process {target.pid} (" in text
    assert "stalls/min" in text
    assert "-> 32767  :" in text
    assert "blocking-syscall" in text
    assert shown.is_ours
    shown.type("q")
    said = shown.ended()
    assert shown.process.returncode == 0
    assert "-o FILE keeps a recording" in said
    assert shown.is_as_before
    assert list(tmp_path.iterdir()) == []


def test_keys_sort_pause_and_go_on(shown: Terminal) -> None:
    shown.until_text("s sort (by share)")
    shown.type("s")
    shown.until_text("s sort (by stalls)")
    shown.type("p")
    shown.until_text("PAUSED")
    still = [line for line in shown.until_text("p go on") if "iterations/s" in line]
    shown.type("s")
    assert [line for line in shown.until_text("(by longest)") if "iterations/s" in line] == still
    shown.type("p")
    shown.until(lambda lines: "PAUSED" not in "\n".join(lines))
    shown.type("q")
    shown.ended()
    assert shown.is_as_before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(number: signal.Signals, target: Target, tmp_path: Path) -> None:
    before = target.report()
    with terminal("attach", str(target.pid), "--live", "-o", "x.stall", cwd=tmp_path) as shown:
        shown.until_text("q quit")
        assert shown.is_ours
        shown.process.send_signal(number)
        assert "recorded in x.stall" in shown.ended()
        assert shown.process.returncode == 0
        assert shown.is_as_before
    assert read(tmp_path / "x.stall").loops
    assert target.settled(before) == before


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(target: Target, shown: Terminal) -> None:
    shown.until_text("q quit")
    shown.process.send_signal(signal.SIGTSTP)
    shown.until_stopped()
    assert shown.is_as_before
    shown.process.send_signal(signal.SIGCONT)
    shown.until(lambda _: shown.is_ours)
    shown.type("q")
    shown.ended()
    assert shown.is_as_before


def test_the_end_of_the_target_gives_the_terminal_back(tmp_path: Path) -> None:
    target = Target(sys.executable, "ticking")
    with terminal("top", str(target.pid), cwd=tmp_path) as shown:
        shown.until_text("q quit")
        target.end()
        assert "ended" in shown.ended()
        assert shown.process.returncode == 0
        assert shown.is_as_before


def test_an_error_of_ours_gives_the_terminal_back(target: Target, tmp_path: Path) -> None:
    """A drawing that fails stands for any exception."""
    failing = "import stallscope.report.live as live\ndef draw(*_, **__): raise ZeroDivisionError\nlive.draw = draw\n"
    (tmp_path / "sitecustomize.py").write_text(failing)
    before = target.report()
    with terminal("top", str(target.pid), cwd=tmp_path, PYTHONPATH=str(tmp_path)) as shown:
        assert "ZeroDivisionError" in shown.ended()
        assert shown.is_as_before
    assert target.settled(before) == before


def test_follows_the_size_of_the_window(shown: Terminal) -> None:
    shown.until_text("q quit")
    shown.resize(100, 40)
    shown.until(lambda lines: "q quit" in lines[39])
    shown.resize(60, 12)
    shown.until(lambda lines: "q quit" in lines[11])


def test_an_overdue_iteration_is_shown_with_its_stack(tmp_path: Path) -> None:
    with running(sys.executable, "sleep") as target, terminal("top", str(target.pid), cwd=tmp_path) as shown:
        lines = shown.until_text("in blocking")
        assert any("OVERDUE" in line for line in lines)
        shown.type("q")
        shown.ended()


def test_without_a_terminal_there_are_lines(target: Target, tmp_path: Path) -> None:
    words = (*TOP, str(target.pid), "--duration", "1s", "--interval", "200ms")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    assert all("iterations" in line for line in lines)
    assert "\x1b" not in done.stdout


def test_lines_of_json(target: Target, tmp_path: Path) -> None:
    words = (*TOP, str(target.pid), "--duration", "2s", "--interval", "200ms", "--json")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["schema"] == 1
    assert last["loops"][0]["pid"] == target.pid
    assert 0 < last["loops"][0]["utilization"] <= 1
    assert last["culprits"][0]["location"]["function"] == "ticking"


def test_a_second_one_looks_on_and_takes_nothing_from_the_first(target: Target, tmp_path: Path) -> None:
    first = attached(target, cwd=tmp_path)
    words = (*TOP, str(target.pid), "--duration", "2s", "--interval", "200ms", "--json")
    second = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert second.returncode == 0, second.stderr
    assert f"observed already, by stallscope attach {target.pid}" in second.stderr
    assert f"(process {first.pid})" in second.stderr
    last = json.loads(second.stdout.splitlines()[-1])
    assert last["culprits"][0]["location"]["function"] == "ticking"
    first.send_signal(signal.SIGINT)
    ended(first)
    recording = read(tmp_path / "x.stall")
    (loop,) = [loop for loop in recording.loops if loop.counts]
    slow = sum(stall.duration_ns >= recording.threshold_ns for stall in recording.stalls)
    assert sum(loop.counts.values()) >= last["iterations"]
    assert slow + recording.suppressed >= last["stalls"] > 0


def test_looking_on_ends_with_the_first(target: Target, tmp_path: Path) -> None:
    first = attached(target, cwd=tmp_path)
    with terminal("top", str(target.pid), cwd=tmp_path) as shown:
        shown.until_text("read-only")
        first.send_signal(signal.SIGINT)
        ended(first)
        assert "the agent left it" in shown.ended()
        assert shown.is_as_before


def test_looking_on_keeps_no_recording(target: Target, tmp_path: Path) -> None:
    first = attached(target, cwd=tmp_path)
    done = subprocess.run(
        (*TOP, str(target.pid), "-o", "y.stall"), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 2
    assert "leave out -o to look on" in done.stderr
    assert not (tmp_path / "y.stall").exists()
    os.kill(first.pid, signal.SIGINT)
    ended(first)
