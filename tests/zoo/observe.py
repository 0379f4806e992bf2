"""Runs the bench's program under ``stallscope run``, where it may be in mounts and a network of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Findings
from stallscope.recording.reader import read
from tests.zoo import uvloops
from tests.zoo.program.truth import Truth

_ROOT = Path(__file__).parents[2]
_UNSHARES = (["unshare", "--mount", "--net"], ["unshare", "--map-root-user", "--mount", "--net"])


class CannotRun(Exception):
    """The program cannot run so here; the text says why."""


class ProgramFailed(Exception):
    """It, or the observation of it, ended with an error or a signal."""


@dataclass(frozen=True)
class Subject:
    """What runs the program: an interpreter, and a loop's kind (``asyncio`` or ``uvloop``)."""

    python: str
    loop: str = "asyncio"
    pulse: bool = True

    @property
    def name(self) -> str:
        """For a file's name."""
        return f"{self.python.strip('/').replace('/', '-')}-{self.loop}"


@dataclass(frozen=True)
class Seen:
    """What the program did, what was found of it, and what it could not do here: the reason, and the kinds."""

    truths: list[Truth]
    findings: Findings
    impossible: dict[str, list[str]]


def stalls(subject: Subject, recording: Path, kinds: Sequence[str], each: int, seed: int) -> Seen:
    """The program's truth, and what stallscope found. Raises CannotRun, ProgramFailed."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as directory:
        truth = Path(directory, "truth")
        words = ["stalls", str(truth), directory, "--each", str(each), "--seed", str(seed)]
        prefix = _unshare()
        words += ["--private"] if prefix else []
        words += ["--kinds", *kinds] if kinds else []
        findings = _findings(subject, recording, words, prefix)
        *lines, last = map(json.loads, truth.read_text().splitlines())
    return Seen([Truth(line) for line in lines], findings, last["impossible"])


def clean(subject: Subject, recording: Path, iterations: int) -> Findings:
    """What stallscope found in a program that never stalls. Raises CannotRun, ProgramFailed."""
    return _findings(subject, recording, ["clean", str(iterations)], [])


def _findings(subject: Subject, recording: Path, words: Sequence[str], prefix: Sequence[str]) -> Findings:
    program = [subject.python, "-m", "tests.zoo.program", "--loop", subject.loop, *words]
    options = ["--force", "-o", str(recording), *([] if subject.pulse else ["--no-pulse"])]
    command = [*prefix, sys.executable, "-m", "stallscope", "run", *options, "--", *program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, env=environment(subject))
    if done.returncode:
        raise ProgramFailed(f"the observed program ended with {done.returncode}: {done.stderr or 'it said nothing'}")
    return examine(read(recording))


def environment(subject: Subject) -> dict[str, str]:
    """In which its interpreter finds its kind of loop. Raises CannotRun."""
    if subject.loop == "asyncio":
        return dict(os.environ)
    found = uvloops.folder(subject.python)
    if isinstance(found, str):
        raise CannotRun(found)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(found), os.environ.get("PYTHONPATH")]))}


@functools.cache
def _unshare() -> list[str]:
    """How a command gets mounts and a network of its own; empty where it cannot."""
    for command in _UNSHARES:
        try:
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            break
    return []
