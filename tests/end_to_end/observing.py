"""Runs programs under ``stallscope run``, and bare beside it, as real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Culprit
from stallscope.recording.nouns import Loop, Process, Recording
from stallscope.recording.reader import read

STALLSCOPE = (sys.executable, "-m", "stallscope")
RECORDING = "x.stall"
RUN = (*STALLSCOPE, "run", "-o", RECORDING)
OURS = b"stallscope: "
PATIENCE_S = 60
"""Long enough for any machine; a test that waits so long has failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended: its return code as ``subprocess`` gives it, its bytes, and our own sentences."""

    code: int
    stdout: bytes
    stderr: bytes
    said: str


def write(directory: Path, name: str, program: str) -> Path:
    """A program file below the directory."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(program))
    return path


def execute(command: Sequence[str], cwd: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Outcome:
    """Run a command to its end; stderr is parted into the program's and ours."""
    done = subprocess.run(command, cwd=cwd, input=stdin, env=env, capture_output=True, timeout=PATIENCE_S)
    return outcome(done.returncode, done.stdout, done.stderr)


def outcome(code: int, stdout: bytes, stderr: bytes) -> Outcome:
    """Part stderr into the program's bytes and our own sentences."""
    lines = stderr.splitlines(keepends=True)
    said = b"".join(line for line in lines if line.startswith(OURS))
    return Outcome(code, stdout, b"".join(line for line in lines if not line.startswith(OURS)), said.decode())


def observed(cwd: Path, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Outcome:
    """``stallscope run -o x.stall WORDS`` to its end."""
    return execute((*RUN, *words), cwd, stdin, env)


def bare(cwd: Path, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Outcome:
    """The same words for Python itself."""
    return execute((sys.executable, *words), cwd, stdin, env)


def start(cwd: Path, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    """``stallscope run -o x.stall WORDS``, with pipes to all of its streams."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen((*RUN, *words), cwd=cwd, **{**streams, **options})


def await_line(stream: IO[bytes] | None, wanted: bytes = b"ready") -> bytes:
    """Read up to the line that begins as wanted; the rest of that line."""
    assert stream is not None
    for line in stream:
        if line.startswith(wanted):
            return line[len(wanted) :].strip()
    raise AssertionError(f"the program ended without saying {wanted.decode()}")


def end(process: subprocess.Popen[bytes], stdin: bytes | None = None) -> Outcome:
    """Wait for a started process to end."""
    stdout, stderr = process.communicate(stdin, timeout=PATIENCE_S)
    return outcome(process.returncode, stdout, stderr)


def recorded(cwd: Path) -> Recording:
    """The recording that the run left."""
    return read(cwd / RECORDING)


def culprits(recording: Recording) -> dict[str, Culprit]:
    """The culprits, by the function that blocked."""
    return {one.location.function: one for one in examine(recording).culprits if one.location}


def stalled_functions(recording: Recording) -> dict[int, set[str]]:
    """For each pid, the functions of its own code that its stalls were caught in."""
    pids = {loop.id: loop.pid for loop in recording.loops}
    found: dict[int, set[str]] = {}
    for stall in recording.stalls:
        names = {frame.function for span in stall.spans for frame in span.stack}
        found.setdefault(pids[stall.loop_id], set()).update(names)
    return found


def process_of(recording: Recording, pid: int) -> Process:
    """The one process row of a pid."""
    (process,) = [process for process in recording.processes if process.pid == pid]
    return process


def loops_of(recording: Recording, pid: int) -> list[Loop]:
    """The loops of a pid."""
    return [loop for loop in recording.loops if loop.pid == pid]


def without_python_settings() -> dict[str, str]:
    """Our environment, without what would make one Python start unlike another."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
