"""What ``pytest --stallscope`` costs a suite: ``python -m tests.benchmarks.plugin [--rounds 5] DIRECTORY [WORD ...]``.

DIRECTORY is where the suite's pytest is run, WORDs are its arguments; ``--python`` names the interpreter of the suite's
environment, where stallscope is installed.  In each round the suite runs bare and with the plugin, in an order that is
drawn anew, and the figures are of the whole tree of processes: CPU time (user and system) and wall time.  Printed are
medians with quartiles, and those of the ratios within the rounds, which drift of the machine's speed falls out of;
``bare again`` is the noise.  Also whether the outcomes were the same: counts of what passed, failed and was skipped.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple


class Cost(NamedTuple):
    """Of one session."""

    cpu_s: float
    wall_s: float
    outcomes: str


def main() -> None:
    """Run the rounds and print one line a way."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        ours = ["--stallscope", f"--stallscope-output={folder}/suite.stall", *options.plugin.split()]
        ways: dict[str, list[str]] = {"bare": [], "bare again": [], "--stallscope": ours}
        session(options, ours)  # bytecode is written, files are cached
        figures: dict[str, list[Cost]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way in random.sample(list(ways), len(ways)):
                figures[way].append(session(options, ways[way]))
    for way, costs in figures.items():
        print(f"{way:>12}: {_row(costs, figures['bare'])}")
        print(f"{'':>14}{'; '.join(sorted({one.outcomes for one in costs}))}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--plugin", default="--stallscope-max-stall=off", help="more options of ours")
    parser.add_argument("directory", type=Path)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    return parser.parse_args()


def session(options: argparse.Namespace, more: list[str]) -> Cost:
    """One run of the suite."""
    command = [options.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options.words, *more]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=options.directory, stdout=output, stderr=subprocess.STDOUT)
        _, _, used = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - begun
        output.seek(0)
        said = output.read()
    found = re.findall(r"(\d+ (?:passed|failed|errors?|skipped|xfailed|xpassed))\b", said.rstrip().rpartition("\n")[2])
    return Cost(used.ru_utime + used.ru_stime, wall_s, ", ".join(found) or said[-300:])


def _row(costs: list[Cost], bare: list[Cost]) -> str:
    cpu, wall = _spread([one.cpu_s for one in costs]), _spread([one.wall_s for one in costs])
    cpu_ratio = _spread([one.cpu_s / other.cpu_s for one, other in zip(costs, bare, strict=True)])
    wall_ratio = _spread([one.wall_s / other.wall_s for one, other in zip(costs, bare, strict=True)])
    return f"CPU {cpu} s, {cpu_ratio} times; wall {wall} s, {wall_ratio} times"


def _spread(values: list[float]) -> str:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return f"{median(values):.3f} [{low:.3f} {high:.3f}]"


if __name__ == "__main__":
    main()
