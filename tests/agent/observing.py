"""Runs a program text under an interpreter with the agent aboard, and reads what was measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stallscope.collect.collector import DRAIN_S, Collector
from stallscope.collect.launch import environment
from stallscope.recording import reader
from stallscope.recording.nouns import Loop, Recording
from stallscope.recording.writer import Writer
from tests.interpreters import Interpreter

TEN_MS = 10_000_000
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Ran:
    """A program's end."""

    code: int
    stdout: str
    stderr: str

    @property
    def told(self) -> Any:
        """What the program told last, as JSON."""
        assert self.code == 0, self.stderr
        return json.loads(self.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Observed(Ran):
    """A program's end, and what was recorded of it."""

    recording: Recording

    def loop(self, name: str) -> Loop:
        """The one loop whose class or thread has this name."""
        (found,) = [loop for loop in self.recording.loops if name in loop.name.split()]
        return found

    def iterations(self, name: str) -> int:
        """How many iterations of that loop were counted."""
        return sum(self.loop(name).counts.values())

    @property
    def calls(self) -> Counter[str]:
        """Calls counted, by the handler's name."""
        counted: Counter[str] = Counter()
        for handler in self.recording.handlers:
            counted[handler.handler.name] += sum(handler.counts.values())
        return counted


class Observing:
    """Runs programs under one interpreter, in one directory, with ``truth`` beside them."""

    def __init__(self, interpreter: Interpreter, directory: Path, library: Path | None = None) -> None:
        self.interpreter = interpreter
        self.library = library  # of the pulse; None: the agent alone
        self.directory = directory
        shutil.copy(Path(__file__).parent / "truth.py", directory)

    def program(self, text: str) -> Path:
        """Write a program text to its file."""
        path = self.directory / "program.py"
        path.write_text(textwrap.dedent(text))
        return path

    def bare(self, text: str, *arguments: str) -> Ran:
        """Run a program without the agent."""
        command = [self.interpreter.executable, str(self.program(text)), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=self.directory)
        return Ran(done.returncode, done.stdout, done.stderr)

    def run(
        self, text: str, *arguments: str, threshold_ns: int = TEN_MS, follow: bool = True, drains: bool = True
    ) -> Observed:
        """Run a program with the agent aboard; ``drains=False``: the collector looks only when all is over."""
        path = self.directory / "program.stall"
        command = [self.interpreter.executable, str(self.program(text)), *arguments]
        with recording_to(path, threshold_ns) as collector, Collected(self.directory) as output:
            env = environment(collector.socket_path, threshold_ns, follow=follow, pulse=self.library)
            process = subprocess.Popen(command, env=env, cwd=self.directory, **output.streams)
            try:
                _drain_until_over(process, collector, drains)
            finally:
                process.kill()
                process.wait()
            stdout, stderr = output.read()
        return Observed(process.returncode, stdout, stderr, reader.read(path))


class Collected:
    """A program's output in files: a pipe that is full would stop it."""

    def __init__(self, directory: Path) -> None:
        self._paths = {name: directory / name for name in ("stdout", "stderr")}

    def __enter__(self) -> Collected:
        self.streams: dict[str, Any] = {name: path.open("wb") for name, path in self._paths.items()}
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self.streams.values():
            stream.close()

    def read(self) -> tuple[str, str]:
        """Standard output and standard error so far."""
        return self._paths["stdout"].read_text(), self._paths["stderr"].read_text()


@contextmanager
def recording_to(path: Path, threshold_ns: int) -> Iterator[Collector]:
    """A collector with a recording of its own, which is complete at the end."""
    begun_ns, wall_s = time.monotonic_ns(), time.time()
    writer = Writer(
        path, source="stallscope", threshold_ns=threshold_ns, started_ns=begun_ns, started_wall_s=wall_s, force=True
    )
    with Collector(writer) as collector:
        yield collector
        collector.finish()
        assert collector.stopped == ""


def _drain_until_over(process: subprocess.Popen[bytes], collector: Collector, drains: bool) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        assert time.monotonic() < deadline, "the program does not end"
        try:
            process.wait(timeout=DRAIN_S)
        except subprocess.TimeoutExpired:
            if drains:
                collector.drain()
