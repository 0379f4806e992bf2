"""What cannot be run or observed: one sentence, the documented exit code, nothing of the program's lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.observing import RECORDING, RUN, STALLSCOPE, bare, execute, observed, recorded, write

LOOP = "import asyncio\nasyncio.run(asyncio.sleep(0.01))\nprint('ran')\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.py"], "no script nowhere.py"),
        (["ls"], "put -- before it"),
        (["-m", "no_such_module"], "no module no_such_module"),
        (["-m", "no.such.module"], "no module no.such.module"),
        (["--", "no-such-command"], "no command no-such-command"),
        (["--", "./not-executable"], "not-executable"),
        (["--", ""], "no command"),
        ([], "nothing to run"),
        (["--"], "nothing to run"),
        (["-m"], "nothing to run"),
        (["--threshold", "0", "program.py"], "--threshold"),
        (["--threshold", "0ms", "program.py"], "--threshold"),
        (["--threshold", "-1", "program.py"], "--threshold"),
        (["--threshold", "-1ms", "program.py"], "--threshold"),
        (["--threshold", "10 parsecs", "program.py"], "parsecs"),
        (["--threshold", "nan", "program.py"], "nan"),
        (["--threshold", "infms", "program.py"], "infms"),
        (["--threshold", "1e9s", "program.py"], "1e9s"),
        (["--threshold", "99999999s", "program.py"], "longer"),
        (["--threshold", "", "program.py"], "empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    write(tmp_path, "program.py", LOOP)
    write(tmp_path, "not-executable", "")
    refused = observed(tmp_path, *words)
    assert (refused.code, refused.stdout, refused.stderr) == (2, b"", b"")
    assert sentence in refused.said
    assert refused.said.count("\n") == 1
    assert not list(tmp_path.glob("*.stall*"))


def test_a_file_that_cannot_be_started(tmp_path: Path) -> None:
    write(tmp_path, "not-a-program", "\0\1\2\3").chmod(0o755)
    refused = observed(tmp_path, "--", "./not-a-program")
    assert (refused.code, refused.stdout, refused.stderr) == (2, b"", b"")
    assert "cannot start ./not-a-program: exec format error" in refused.said
    assert not list(tmp_path.glob("*.stall*"))


@pytest.mark.parametrize("words", [["--threshold"], ["--frobnicate", "x.py"], ["-o"]])
def test_wrong_options_are_explained(tmp_path: Path, words: list[str]) -> None:
    refused = execute((*STALLSCOPE, "run", *words), tmp_path)
    assert (refused.code, refused.stdout) == (2, b"")
    assert words[0].encode() in refused.stderr
    assert b"Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "program",
    ["def broken(:\n    pass\n", "print('a')\n  print('b')\n", "x = '\n", "import no_such_module_either\n", "1 / 0\n"],
)
def test_an_error_of_the_program_is_its_own(tmp_path: Path, program: str) -> None:
    write(tmp_path, "broken.py", program)
    plain = bare(tmp_path, "broken.py")
    watched = observed(tmp_path, "broken.py")
    assert plain.code == 1
    assert (watched.code, watched.stdout, watched.stderr) == (plain.code, plain.stdout, plain.stderr)
    assert b"stallscope" not in watched.stderr
    assert watched.said == ""
    assert not (tmp_path / RECORDING).exists()


def test_a_module_that_cannot_be_run_is_pythons_error(tmp_path: Path) -> None:
    write(tmp_path, "package/__init__.py", "")
    plain, watched = bare(tmp_path, "-m", "package"), observed(tmp_path, "-m", "package")
    assert (watched.code, watched.stderr) == (plain.code, plain.stderr)
    assert b"__main__" in plain.stderr


@pytest.mark.parametrize("words", [("ls", "/"), ("true",), ("sh", "-c", "echo out; echo err >&2")])
def test_a_command_that_is_not_python(tmp_path: Path, words: tuple[str, ...]) -> None:
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]} here")
    watched, plain = observed(tmp_path, "--", *words), execute(words, tmp_path)
    assert (watched.code, watched.stdout, watched.stderr) == (3, plain.stdout, plain.stderr)
    assert "needs the pulse" in watched.said
    assert not (tmp_path / RECORDING).exists()


def test_a_command_that_is_not_python_without_its_children(tmp_path: Path) -> None:
    refused = observed(tmp_path, "--no-follow-children", "--", "sh", "-c", "echo ran")
    assert (refused.code, refused.stdout) == (3, b"")
    assert refused.said.count("\n") == 1


def test_a_shell_script_that_starts_python(tmp_path: Path) -> None:
    write(tmp_path, "program.py", LOOP)
    write(tmp_path, "start.sh", f"#!/bin/sh\n{sys.executable} program.py\nexit 7\n").chmod(0o755)
    watched = observed(tmp_path, "--", "./start.sh")
    assert (watched.code, watched.stdout) == (7, b"ran\n")
    assert len(recorded(tmp_path).loops) == 1


def test_a_script_with_python_in_its_first_line(tmp_path: Path) -> None:
    write(tmp_path, "program", f"#!{sys.executable}\n{LOOP}").chmod(0o755)
    watched = observed(tmp_path, "--no-follow-children", "--", "./program")
    assert (watched.code, watched.stdout) == (0, b"ran\n")
    assert len(recorded(tmp_path).loops) == 1


@pytest.mark.parametrize("flag", ["-I", "-E", "-S", "-IS"])
def test_a_python_that_cannot_be_boarded(tmp_path: Path, flag: str) -> None:
    write(tmp_path, "program.py", LOOP)
    watched = observed(tmp_path, "--", sys.executable, flag, "program.py")
    plain = bare(tmp_path, flag, "program.py")
    assert (plain.code, watched.code) == (0, 3)
    assert (watched.stdout, watched.stderr) == (plain.stdout, plain.stderr)
    assert "-I, -E or -S" in watched.said
    assert watched.said.count("\n") == 1


def test_an_environment_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "program.py", LOOP)
    watched = observed(tmp_path, "--", "env", "-i", sys.executable, "program.py")
    assert (watched.code, watched.stdout, watched.stderr) == (3, b"ran\n", b"")
    assert "stallscope: " in watched.said


def test_no_home_no_path_no_language(tmp_path: Path) -> None:
    write(tmp_path, "program.py", LOOP)
    watched = observed(tmp_path, "program.py", env={})
    assert (watched.code, watched.stdout, watched.stderr) == (0, b"ran\n", b"")
    assert len(recorded(tmp_path).loops) == 1


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    write(tmp_path, "program.py", LOOP)
    commands = [(*RUN[:-1], f"{name}.stall", "program.py") for name in ("one", "two")]
    processes = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "one.stall").exists()
    assert (tmp_path / "two.stall").exists()


def test_a_run_inside_a_run(tmp_path: Path) -> None:
    """The inner one observes what it starts, the outer one nothing of it twice."""
    write(tmp_path, "program.py", LOOP)
    inner = (*STALLSCOPE, "run", "-o", "inner.stall", "program.py")
    watched = observed(tmp_path, "--", *inner)
    assert watched.stdout == b"ran\n"
    assert (tmp_path / "inner.stall").exists()
