"""How long the diagnosis of an hour takes: ``python -m tests.benchmarks.analysis [--stalls 3000] [--handlers 300]``.

A made-up hour: four workers, log-normal iterations, so many stalls in a hundred places with six spans and a stack of
twenty frames each, half of them with timed calls, and so many handlers with histograms.  The bar: DESIGN.md,
"analysis".  Prints the medians of five runs: reading the file, analysis, the report, and the whole command with the
start of Python.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from stallscope.agent.layout import bucket_of
from stallscope.analysis.examine import examine
from stallscope.recording.nouns import Call, Frame, Handler, HandlerTime, Resource, Span, Stack, Stall, TimedCall
from stallscope.recording.reader import read
from stallscope.recording.writer import Writer
from stallscope.report import json_report, terminal

MS, S = 1_000_000, 1_000_000_000
HOUR_NS = 3600 * S
WORKERS, PLACES, SPANS, RUNS = 4, 100, 6, 5
OUTER = tuple(Frame(f"/srv/venv/lib/python3.11/site-packages/framework/m{n}.py", n, f"outer_{n}") for n in range(18))
COMMAND = "from stallscope.cli import main; main()"


def place(number: int) -> tuple[Stack, Call]:
    """One of the lines that block."""
    stack = (Frame("/srv/app/storage.py", 10 + number, f"load_{number}"), *OUTER)
    return stack, Call("read", Resource("path", f"/srv/data/{number}.bin"), "fd 7")


def a_stall(chance: random.Random, worker: int, handlers: list[Handler]) -> Stall:
    """A stall of 10 ms to half a second that alternates between two places."""
    start, length = chance.randrange(HOUR_NS), round(10 * MS * chance.lognormvariate(1, 0.8)) + 10 * MS
    first = chance.randrange(PLACES)
    places = [place(first), place(first // 2)]
    step = length // SPANS
    spans = [
        Span(start + k * step, start + (k + 1) * step, 3, *places[k % 2], "S", step // 50, 0, k % 2)
        for k in range(SPANS)
    ]
    times = (HandlerTime(handlers[first % len(handlers)], 2, length - MS), HandlerTime(handlers[0], 3, MS // 2))
    calls = (TimedCall(start, length // 2, places[0][1], places[0][0], 1),) if chance.random() < 0.5 else ()
    return Stall(worker, start, length, True, "Task-1", times, times[0].handler, tuple(spans), calls)


def write(path: Path, stalls: int, handlers: int) -> None:
    """The hour, as a file."""
    chance = random.Random(1)
    writer = Writer(path, source="stallscope", threshold_ns=10 * MS, started_ns=0, started_wall_s=0.0)
    named = [Handler(f"Server.handle_{n}", "/srv/app/handlers.py", 10 * n + 1) for n in range(handlers)]
    for worker in range(1, WORKERS + 1):
        process = writer.process(100 + worker, 1, "python app.py", "CPython 3.11.7", 0)
        writer.loop(process, 100 + worker, "asyncio", "MainThread", 0)
        writer.histogram(
            worker, HOUR_NS, Counter(bucket_of(round(200_000 * chance.lognormvariate(0, 1))) for _ in range(5000))
        )
        for handler in named:
            writer.handler_histogram(
                writer.handler(process, handler), {chance.randrange(300, 500): 50 for _ in range(20)}
            )
        own = [a_stall(chance, worker, named) for _ in range(stalls // WORKERS)]
        writer.histogram(worker, HOUR_NS, Counter(bucket_of(one.duration_ns) for one in own))
        for one in own:
            writer.stall(one)
        writer.loop_seen(worker, HOUR_NS, 0)
    writer.close(HOUR_NS)


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = perf_counter()
    action()
    return perf_counter() - start


def main() -> None:
    """Print one row a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stalls", type=int, default=3000)
    parser.add_argument("--handlers", type=int, default=300)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hour.stall"
        write(path, wanted.stalls, wanted.handlers)
        recording = read(path)
        found = examine(recording)
        steps: dict[str, Callable[[], object]] = {
            "read the file": lambda: read(path),
            "analysis": lambda: examine(recording),
            "report, text": lambda: terminal.render(found, verbose=True),
            "report, JSON": lambda: json_report.render(found),
            "the whole command": lambda: subprocess.run(
                [sys.executable, "-c", COMMAND, "analyze", str(path)], check=True, capture_output=True
            ),
        }
        for name, action in steps.items():
            print(f"{name:<20}{median(seconds(action) for _ in range(RUNS)):7.3f} s")


if __name__ == "__main__":
    main()
