"""The hostile set, again and again: ``python -m tests.zoo.hostile``. No crash, no hang.

What a program may do to itself while the pulse is aboard: signals in hooked calls, forks, small stacks, objects that
come and go, no descriptors left, a sandbox. ``NATIVE`` are the scenarios in C of ``tests/pulse/native``, each in a
process of its own; ``PYTHON`` are those of ``tests/pulse/test_hostile.py``, each against the same program run bare.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.pulse.toolchains import SANITIZING, SCENARIOS, SKIPPED, Toolchain, build

ROOT = Path(__file__).parents[2]
PYTHON = "tests/pulse/test_hostile.py"
HANG_S = 120.0

Run = Callable[[], str]  # what went wrong; "": nothing


def native(toolchain: Toolchain, program: Path, scenario: str) -> Run:
    """One scenario in C."""
    preloaded = {"LD_PRELOAD": str(program.parent / "preload.so")} if scenario == "preloaded" else {}

    def run() -> str:
        try:
            done = toolchain.run(program, scenario, preloaded, HANG_S)
        except subprocess.TimeoutExpired:
            return "hangs"
        return "" if done.returncode in (0, SKIPPED) else f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"

    return run


def python() -> str:
    """All of the cases in Python, once."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", PYTHON]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"})
    return "" if done.returncode == 0 else done.stdout[-600:]


def cases(folder: Path, sanitized: bool) -> Iterator[tuple[str, Run]]:
    """Name and run of each case."""
    toolchain = Toolchain("hostile", "gcc", SANITIZING) if sanitized else Toolchain("hostile", "cc")
    program = build(toolchain, folder)
    yield from ((name, native(toolchain, program, name)) for name in SCENARIOS)
    yield PYTHON, python


def main() -> int:
    """Exit code 0: nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--sanitized", action="store_true", help="the C part under ASan and UBSan")
    parser.add_argument("--native-only", action="store_true", help="leave the cases in Python out")
    wanted = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = [case for case in cases(Path(folder), wanted.sanitized) if not wanted.native_only or case[0] != PYTHON]
        for number in range(1, wanted.runs + 1):
            for name, run in chosen:
                problem = run()
                failed += bool(problem)
                if problem:
                    print(f"run {number}, {name}: {problem}", flush=True)
            print(f"{number} of {wanted.runs} runs of {len(chosen)} cases, {failed} failed", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
