"""PEP 768, spoken from outside: running and blocked main threads, doors that are locked, and versions without one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stallscope.attach import box as boxes
from stallscope.attach import methods, remote_exec, session
from stallscope.attach.facts import Facts
from stallscope.attach.methods import PTRACE, REMOTE_EXEC, unusable_reasons
from stallscope.errors import NotObservable
from tests.attach.programs import WAITING, program
from tests.attach.targets import running, stay
from tests.interpreters import every_version, require

pytestmark = pytest.mark.usefixtures("ptrace")
NEW = [one for one in every_version() if one.values[0] >= remote_exec.OLDEST]
OLD = [one for one in every_version() if one.values[0] < remote_exec.OLDEST]


@pytest.mark.parametrize("version", NEW)
@pytest.mark.parametrize("kind", ["ticking", "cpu", "idle", "read", "sleep"])
def test_it_comes_aboard_and_leaves_no_trace(version: tuple[int, int], kind: str, tmp_path: Path) -> None:
    with running(require(version).executable, kind) as target:
        before = target.report()
        for _ in range(3):
            with stay(target, tmp_path / "x.stall", method=REMOTE_EXEC) as (_, boarded):
                assert boarded.method == REMOTE_EXEC
                assert "_stallscope_agent" in target.report()["modules"]
            assert target.settled(before) == before


@pytest.mark.parametrize("version", NEW)
def test_a_main_thread_that_does_not_come_back_is_left_to_ptrace(version: tuple[int, int], tmp_path: Path) -> None:
    with running(require(version).executable, "lock") as target:
        before = target.report()
        with (
            pytest.raises(NotObservable, match="does not come back to Python"),
            stay(target, tmp_path / "x.stall", method=REMOTE_EXEC),
        ):
            pass
        with stay(target, tmp_path / "x.stall") as (_, boarded):
            assert boarded.method == PTRACE
        assert target.settled(before) == before


@pytest.mark.parametrize("version", NEW)
def test_a_door_that_is_locked_is_said_so_and_passed_by(version: tuple[int, int], tmp_path: Path) -> None:
    locked = {**os.environ, "PYTHON_DISABLE_REMOTE_DEBUG": "1"}
    with program(require(version).executable, "-c", WAITING, env=locked, stderr=subprocess.PIPE) as process:
        with (
            pytest.raises(NotObservable, match="remote debugging is disabled"),
            stay(process, tmp_path / "x.stall", method=REMOTE_EXEC),
        ):
            pass
        assert "remote debugging is disabled" in str(unusable_reasons(Facts(process.pid))[REMOTE_EXEC])
        with stay(process, tmp_path / "x.stall") as (_, boarded):
            assert boarded.method == PTRACE


@pytest.mark.parametrize("version", OLD)
def test_an_older_python_has_no_such_door(version: tuple[int, int]) -> None:
    with program(require(version).executable, "-c", WAITING) as process:
        facts = Facts(process.pid)
        assert facts.version == version
        assert remote_exec.unusable_reason(facts) == "it needs CPython 3.14 or newer"


@pytest.mark.parametrize("version", NEW)
def test_the_file_is_there_until_the_box_is(
    version: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter takes the flag back before it reads the file."""
    seen: list[bool] = []
    found = boxes.opened

    def opened(pid: int, name: str) -> boxes.Box | None:
        seen.append(all((directory / "start.py").exists() for directory in directories))
        return found(pid, name)

    directories: list[Path] = []
    brought = methods.bring

    def bring(facts: Facts, source: bytes, method: str, directory: Path) -> methods.Arrival:
        directories.append(directory)
        return brought(facts, source, method, directory)

    monkeypatch.setattr(session, "bring", bring)
    monkeypatch.setattr(boxes, "opened", opened)
    waiting = program(require(version).executable, "-c", WAITING)
    with waiting as process, stay(process, tmp_path / "x.stall", method=REMOTE_EXEC):
        pass
    assert seen
    assert all(seen)
    assert not any(directory.exists() for directory in directories)
