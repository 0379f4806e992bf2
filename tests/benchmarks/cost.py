"""What the agent costs its host: ``python -m tests.benchmarks.cost [--python PATH] [--loop uvloop] [--pairs 15]``.

With ``--library PULSE`` instead: what the pulse's iterations and its handler runner cost, beside the agent's
wrappers, by turns in one process (``rounds``).

Bare and observed runs alternate; each figure is the median over the pairs, with quartiles, so that
a machine whose speed drifts does not decide; of rounds, the lowest tenth. Bars: DESIGN.md, "the same, agent alone".
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.workload import WORKLOADS
from tests.zoo.observe import CannotRun, Subject, environment
from tests.zoo.stalls import LOOPS

PROGRAM = str(Path(__file__).with_name("workload.py"))


def main() -> None:
    """Print one row a workload."""
    options = _options()
    if options.library:
        _rounds(options)
        return
    print(f"{'':28} {'bare':>12} {'observed':>12} {'ratio':>16} {'added':>16}")
    for name in WORKLOADS:
        rows = [_pair(options, name) for _ in range(options.pairs)]
        print(_row(name, "CPU ns each", [(bare["ns"], seen["ns"]) for bare, seen in rows]))
        if "per_s" in rows[0][0]:
            print(_row("", "requests/s", [(bare["per_s"], seen["per_s"]) for bare, seen in rows]))


def _rounds(options: argparse.Namespace) -> None:
    """Print one row a workload and way of measuring."""
    program = str(Path(__file__).with_name("rounds.py"))
    command = [options.python, program, options.library, str(2 * options.pairs), options.loop]
    where = environment_for(options.python, options.loop)
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=where)
    print(f"{'':44} {'bare':>10} {'observed':>10} {'ratio':>7} {'added':>8}  CPU ns each, lowest tenth")
    for name, ways in json.loads(finished.stdout).items():
        bare, *observed = [(way, statistics.quantiles(figures, n=10)[0]) for way, figures in ways.items()]
        for way, least in observed:
            print(f"{way:15} {name:28} {bare[1]:10,.0f} {least:10,.0f} {least / bare[1]:7.3f} {least - bare[1]:8,.0f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the observed program")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--library", help="the pulse, as it was built")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--scale", type=float, default=1.0, help="length of each run")
    return parser.parse_args()


def _pair(options: argparse.Namespace, name: str) -> tuple[dict[str, float], dict[str, float]]:
    command = [options.python, PROGRAM, name, str(options.scale), options.loop]
    environment = environment_for(options.python, options.loop)
    with tempfile.TemporaryDirectory() as directory:
        recording = str(Path(directory) / "cost.stall")
        observed = [sys.executable, "-m", "stallscope", "run", "-o", recording, "--", *command]
        return _measure(command, environment), _measure(observed, environment)


def environment_for(python: str, loop: str) -> dict[str, str]:
    """In which ``python`` finds that kind of loop; leaves with the reason where it cannot."""
    try:
        return environment(Subject(python, loop))
    except CannotRun as reason:
        sys.exit(str(reason))


def _measure(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, float] = json.loads(finished.stdout)
    return result


def _row(name: str, unit: str, pairs: Sequence[tuple[float, float]]) -> str:
    bare, seen = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = spread([after / before for before, after in pairs], lambda value: f"{value:.3f}")
    added = spread([after - before for before, after in pairs], lambda value: f"{value:,.0f}")
    return f"{name:28} {bare:12,.0f} {seen:12,.0f} {ratio:>22} {added:>24}  {unit}"


def spread(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The median, and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return f"{shown(middle)} [{shown(low)} {shown(high)}]"


if __name__ == "__main__":
    main()
