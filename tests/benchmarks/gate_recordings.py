"""Makes the recordings of the gate's studies: ``python -m tests.benchmarks.gate_recordings DIRECTORY``.

Each is a run of `gate_program`, with one of its regressions and with zero to four processes beside it that compute
all the time, in an order that is drawn at random, so that whatever the machine does meanwhile falls on all alike.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.gate_program import REGRESSIONS

HOGS = 4
PROGRAM = str(Path(__file__).with_name("gate_program.py"))


def main() -> None:
    """Record what is not yet there."""
    options = _options()
    plan = [("none", n) for n in range(options.identical)]
    plan += [(name, n) for name in options.only if name != "none" for n in range(options.regressed)]
    drawn = random.Random(options.seed)
    drawn.shuffle(plan)
    for name, number in plan:
        stem = options.directory / f"{name}-{drawn.randrange(HOGS + 1)}-{number:03}"
        if not stem.with_suffix(".json").exists():
            record(stem, name, int(stem.name.split("-")[1]), options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--identical", type=int, default=400, help="runs without a regression")
    parser.add_argument("--regressed", type=int, default=60, help="runs of each regression")
    parser.add_argument("--only", nargs="*", default=REGRESSIONS, help="of these regressions")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each run, at least")
    parser.add_argument("--requests", type=int, default=0, help="answered in each run, at least: two iterations each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-pulse", dest="pulse", action="store_false", help="by the agent alone")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    return options


def record(stem: Path, regression: str, hogs: int, asked: argparse.Namespace) -> None:
    """One recording, and the program's own account beside it (only if all went well)."""
    sidecar = stem.with_suffix(".json")
    program = [PROGRAM, str(asked.seconds), str(asked.requests), regression, str(sidecar)]
    program += [] if asked.pulse else ["count"]
    options = ["--force", "-o", str(stem.with_suffix(".stall")), "--pulse" if asked.pulse else "--no-pulse"]
    with _hogs(hogs):
        done = subprocess.run(
            [sys.executable, "-m", "stallscope", "run", *options, *program], capture_output=True, text=True, check=False
        )
    if done.returncode:
        print(f"{stem.name}: ended with {done.returncode}: {done.stderr.strip()}", flush=True)
        sidecar.unlink(missing_ok=True)


@contextmanager
def _hogs(number: int) -> Iterator[None]:
    endless = [sys.executable, "-S", "-c", "while True: pass"]
    hogs = [subprocess.Popen(endless) for _ in range(number)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


if __name__ == "__main__":
    main()
