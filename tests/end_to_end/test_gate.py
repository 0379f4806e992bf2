"""The gate on real sessions of a real suite: what an edit changes, and what it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stallscope import __version__, pulse
from tests.end_to_end.observing import observed, recorded, write

APP = """
import os

async def settings(path):
    with open(path) as file:
        return file.read()

class Listing:
    async def names(self, directory):
        found = os.listdir(directory)
        return sorted(found)
"""
TESTS = """
import asyncio, os
import app

async def test_settings():
    for _ in range(3):
        await app.settings(os.devnull)

async def test_names():
    for _ in range(3):
        await app.Listing().names("/")
"""
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


class Project:
    """A project with a suite, and a baseline of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "pytest.ini").write_text(INI)
        (root / "pyproject.toml").write_text('[project]\nname = "shop"\n')
        self.record(APP, TESTS)
        self._stallscope("baseline", "update", "pytest.stall")

    def record(self, app: str, tests: str) -> None:
        """Run the suite of such a program under the plugin."""
        (self.root / "app.py").write_text(app)
        (self.root / "test_app.py").write_text(tests)
        self._run(
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--stallscope", "--stallscope-max-stall=off"
        )

    def gate(self) -> Any:
        """The verdict on the last session."""
        done = self._stallscope("gate", "pytest.stall", "--max-stall=off", "--json", codes=(0, 1))
        return json.loads(done.stdout)

    def _stallscope(self, *words: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        return self._run(sys.executable, "-m", "stallscope", *words, codes=codes)

    def _run(self, *command: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        foreign = ("PYTEST_", "GITHUB_", "GITLAB_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode in codes, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("shop"))


def new_places(project: Project) -> list[tuple[str, str, str]]:
    found = project.gate()["new_culprits"]
    return [(one["site"]["file"], one["site"]["function"], one["site"]["call"]) for one in found]


def test_the_same_code_has_nothing_new(project: Project) -> None:
    project.record(APP, TESTS)
    assert new_places(project) == []


def test_lines_that_move_a_renamed_variable_and_reordered_tests_are_nothing_new(project: Project) -> None:
    moved = "# a comment\n" * 40 + APP.replace("found", "entries").replace("file:", "handle:").replace(
        "file.", "handle."
    )
    head, first, second = TESTS.partition("async def test_settings")[0], *TESTS.split("async def ")[1:]
    project.record(moved, head + "".join(f"async def {test}\n" for test in (second, first)))
    assert new_places(project) == []


def test_a_new_open_in_what_others_share_is_new(project: Project) -> None:
    helper = "\ndef _log(text):\n    with open(os.devnull, 'w') as file:\n        file.write(text)\n"
    calling = APP.replace("        return file.read()", "        _log('read')\n        return file.read()")
    calling = calling.replace("        return sorted(found)", "        _log('listed')\n        return sorted(found)")
    project.record(calling + helper, TESTS)
    assert new_places(project) == [("app.py", "_log", "open")]


def test_a_call_that_went_away_is_no_failure(project: Project) -> None:
    project.record(APP.replace("os.listdir(directory)", "[directory]"), TESTS)
    assert new_places(project) == []


@pytest.mark.skipif(pulse.unusable_reason() is not None, reason=f"no pulse: {pulse.unusable_reason()}")
def test_a_recording_says_which_calls_the_pulse_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        "app.py",
        """
        import asyncio, os

        async def main():
            for _ in range(3):
                os.stat("/")
                await asyncio.sleep(0.001)

        asyncio.run(main())
        """,
    )
    observed(tmp_path, "app.py")
    recording = recorded(tmp_path)
    assert recording.recorder == __version__
    assert {one.call.name for one in recording.call_sites} <= (recording.counted_calls or set())
    assert {"openat", "fsync", "clock_nanosleep"} <= (recording.counted_calls or set())
