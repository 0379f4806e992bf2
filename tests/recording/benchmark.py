"""What a recording costs: ``python -m tests.recording.benchmark``. Sizes, CPU and loading times.

An hour is written as the collector writes it (ten drains and one commit a second), only faster:
a healthy loop with 5000 iterations/s, log-normal around 200 us, and twenty handlers, with so
many stalls a minute beside it. The bars: under 1 MiB an hour without stalls; CPU well under 1 %
of a core at 1000 stalls/min; a typical hour (1000 stalls in all) loads well within 1 s.
"""

from __future__ import annotations

import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stallscope.agent.layout import bucket_of
from stallscope.recording.nouns import Call, Frame, Handler, HandlerTime, Resource, Span, Stall
from stallscope.recording.reader import read
from stallscope.recording.writer import SECOND_NS, Writer
from tests.recording.examples import STARTED_NS, with_one_loop

HOUR_S = 3600
DRAINS = 10
ITERATIONS = 500
"""In one drain."""
HANDLERS = [Handler(f"Server.handle_{number}", "/srv/app/handlers.py", 10 * number) for number in range(20)]
OUTER = tuple(Frame(f"/usr/lib/python3/dist-packages/framework/module_{n}.py", n, f"outer_{n}") for n in range(15))


def some_counts(chance: random.Random) -> list[Counter[int]]:
    """A hundred different drains of a healthy loop."""
    return [
        Counter(bucket_of(int(200_000 * chance.lognormvariate(0, 0.6))) for _ in range(ITERATIONS)) for _ in range(100)
    ]


def a_stall(chance: random.Random, at_ns: int) -> Stall:
    """A stall with three spans, caught in one of 300 places, on one of 5000 files."""
    line = chance.randrange(300)
    stack = (Frame("/srv/app/storage.py", line, f"store_{line % 40}"), *OUTER)
    call = Call("write", Resource("path", f"/srv/data/{chance.randrange(5000)}"), f"fd {chance.randrange(50)}")
    span = Span(at_ns, at_ns + 10_000_000, 3, stack, call, "D", 100_000, 20_000, 0, 1_000)
    handler = chance.choice(HANDLERS)
    times = (HandlerTime(handler, 1, 29_000_000), HandlerTime(HANDLERS[0], 2, 100_000))
    spans = (span._replace(stack=(), call=None, cpu_ns=None), span, span._replace(samples=9))
    return Stall(1, at_ns, 30_000_000, True, "Task-1", times, handler, spans)


def write_second(writer: Writer, second: int, drains: Sequence[Counter[int]], stalls: Sequence[Stall]) -> None:
    """One second as the collector writes it."""
    at_ns = STARTED_NS + second * SECOND_NS
    for drain in range(DRAINS):
        writer.histogram(1, at_ns, drains[drain])
        writer.loop_seen(1, at_ns, second)
        for handler in HANDLERS[drain::DRAINS]:
            writer.handler_histogram(writer.handler(1, handler), drains[drain])
    for stall in stalls:
        writer.stall(stall)
    writer.commit()


def write_hour(path: Path, stalls_a_minute: int) -> float:
    """Write an hour; returns the CPU seconds of the writing alone."""
    chance = random.Random(2)
    known, cpu_s, owed = some_counts(chance), 0.0, 0.0
    writer = with_one_loop(path)
    for second in range(HOUR_S):
        owed += stalls_a_minute / 60
        start_ns = STARTED_NS + second * SECOND_NS
        stalls = [a_stall(chance, start_ns + number) for number in range(int(owed))]
        owed -= len(stalls)
        drains = chance.sample(known, DRAINS)
        before = time.process_time()
        write_second(writer, second, drains, stalls)
        cpu_s += time.process_time() - before
    writer.close(STARTED_NS + HOUR_S * SECOND_NS)
    return cpu_s


def measure(path: Path, title: str, stalls_a_minute: int) -> None:
    """Write and load one hour and print what it cost."""
    cpu_s = write_hour(path, stalls_a_minute)
    before = time.perf_counter()
    recording = read(path)
    load_s = time.perf_counter() - before
    size = path.stat().st_size
    print(
        f"{title:<32} {size / 2**20:7.2f} MiB  {100 * cpu_s / HOUR_S:5.2f} % CPU"
        f"  loaded in {load_s:6.3f} s  ({len(recording.stalls)} stalls)"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory, "a.stall"), "healthy hour", 0)
        measure(Path(directory, "b.stall"), "typical hour, 17 stalls/min", 17)
        measure(Path(directory, "c.stall"), "extreme hour, 1000 stalls/min", 1000)
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most, loading included")
