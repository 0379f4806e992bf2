"""The injector may be killed at any moment, and a thread that does not come back to Python is told of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stallscope.attach import elf, session
from stallscope.attach.facts import Facts
from stallscope.attach.inject import Plan, _with_pending_lock, inject
from stallscope.attach.machine import this_machine
from stallscope.attach.payload import modules_for
from stallscope.errors import NotObservable
from tests.attach.targets import PATIENCE_S, running, stay
from tests.interpreters import every_version, require
from tests.zoo.attach_matrix import Row, cycle

pytestmark = pytest.mark.usefixtures("ptrace")

IN_C = "print('ready', flush=True)\nsum(range(10**12))"


@pytest.mark.parametrize("kind", ["idle", "cpu", "lock", "ticking"])
def test_a_killed_injector_leaves_the_target_running(kind: str, tmp_path: Path) -> None:
    with running(sys.executable, kind) as target:
        before, modules, row = target.report(), modules_for(Facts(target.pid)), Row(kind)
        for _ in range(10):
            cycle(target, modules, tmp_path / "x.stall", row, kill=True)
            assert target.process.poll() is None
        assert row.killed
        assert target.settled(before) == before


def test_a_thread_in_c_code_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_ANSWER_S", 0.5)
    process = subprocess.Popen([sys.executable, "-c", IN_C], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    with pytest.raises(NotObservable, match="in C code"), stay(process, tmp_path / "x.stall"):
        pass
    assert process.poll() is None
    process.kill()
    assert process.communicate()[1] == b""


def test_any_source_runs_in_the_main_thread(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    source = f"import threading; open({str(seen)!r}, 'w').write(threading.current_thread().name)"
    code = f"print('ready', flush=True); input(); assert open({str(seen)!r}).read() == 'MainThread'"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    injected = inject(Plan(Facts(process.pid), source.encode()))
    assert not injected.queued
    process.communicate(b"\n", timeout=PATIENCE_S)
    assert process.returncode == 0


@pytest.mark.parametrize("version", every_version())
def test_whoever_takes_the_lock_of_pending_calls_is_known_in_a_stripped_program_too(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(require(version).executable, "idle") as target:
        python = Facts(target.pid).python
    assert python is not None
    static = {"make_pending_calls", "_make_pending_calls"}
    named = python.elf.symbols(static)
    if not named:
        pytest.skip("this interpreter is stripped itself")
    low, size = named.get("_make_pending_calls") or named["make_pending_calls"]  # 3.13 takes them out in the former
    symbols = elf.Elf.symbols
    monkeypatch.setattr(elf.Elf, "symbols", lambda of, names: symbols(of, set(names) - static))
    spans = _with_pending_lock(python, this_machine())
    assert any(first <= low + python.bias and low + size + python.bias <= last for first, last in spans)
    assert all(last - first < 4096 for first, last in spans)
