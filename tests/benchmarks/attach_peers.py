"""Attaching, side by side: stallscope, memray attach, py-spy dump and debugpy, on the same kind of target in turn.

Usage: python -m tests.benchmarks.attach_peers BIN [ROUNDS], where BIN is the bin directory of a virtual environment
with memray, py-spy and debugpy (and gdb on PATH). The target computes and looks at its clock every 15 µs: the longest
time between two looks is what it felt, with nothing attached too. Rounds are interleaved.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.attach.targets import Target

_LIMIT_S = 60.0
_NOTHING_S = 1.5


@dataclass
class Tool:
    """One way to look into the target, and what came of it."""

    name: str
    command: list[str]
    felt_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        felt = sorted(self.felt_ms) or [0.0]
        left = max(set(self.left), key=self.left.count) if self.left else ""
        return (
            f"{self.name:16} felt {statistics.median(felt):8.2f} ms median {felt[-1]:8.2f} max  "
            f"{len(self.failures)} failures of {len(felt) + len(self.failures)}  left: {left}"
        )


def visit(tool: Tool, python: str, directory: Path) -> None:
    """One fresh target, looked into once."""
    target = Target(python, "cpu")
    with contextlib.suppress(PermissionError):  # what else runs here is not to be felt
        os.setpriority(os.PRIO_PROCESS, target.pid, -15)
    before, modules = target.usage(), target.report()["modules"]
    target.longest_s()
    words = {"PID": str(target.pid), "OUT": str(directory / f"out-{target.pid}"), "PORT": str(free_port())}
    try:
        done = subprocess.run([words.get(word, word) for word in tool.command], capture_output=True, timeout=_LIMIT_S)
        felt_s = target.longest_s()
        if target.process.poll() is not None or done.returncode:
            tool.failures.append((done.stderr.decode("utf-8", "replace").strip().splitlines() or ["?"])[-1])
        else:
            tool.felt_ms.append(felt_s * 1e3)
            time.sleep(0.2)  # a thread that is leaving may go
            more = len(set(target.report()["modules"]) - set(modules))
            tool.left.append(f"{target.usage().since(before)}, modules +{more}")
    except (subprocess.TimeoutExpired, ValueError, BrokenPipeError) as error:
        tool.failures.append(f"{type(error).__name__}, target {target.process.poll()}")
    finally:
        target.end()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(bin_directory: Path, rounds: int) -> None:
    """Every tool in each round, in a new order; then a line about each."""
    python = str(bin_directory / "python")
    attach = [sys.executable, "-m", "stallscope", "attach", "PID", "--duration", "500ms", "-o", "OUT"]
    tools = [
        Tool("nothing", [sys.executable, "-c", f"import time; time.sleep({_NOTHING_S})"]),
        Tool("stallscope", attach),
        Tool("memray attach", [str(bin_directory / "memray"), "attach", "--duration", "1", "-o", "OUT", "PID"]),
        Tool("py-spy dump", [str(bin_directory / "py-spy"), "dump", "--pid", "PID"]),
        Tool("debugpy", [python, "-m", "debugpy", "--listen", "PORT", "--pid", "PID"]),
    ]
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            for tool in random.sample(tools, len(tools)):
                visit(tool, python, Path(directory))
    for tool in tools:
        print(tool)
        for why in sorted(set(tool.failures)):
            print(f"    {tool.failures.count(why)} x {why}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 10)
