"""What the collector itself takes: ``python -m tests.benchmarks.collector [--seconds 20]``.

CPU share of one core and peak memory of the ``stallscope run`` process, beside a program that
stalls a thousand times a minute and beside an idle one. Bars: DESIGN.md, "collector".
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

_PROGRAM = """
import asyncio, sys, time
async def main(seconds, stalls_a_minute):
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    print("ready", flush=True)
    while loop.time() < end:
        if stalls_a_minute:
            time.sleep(0.011)
        await asyncio.sleep(60 / stalls_a_minute - 0.011 if stalls_a_minute else 1)
    print("done", flush=True)
    sys.stdin.readline()
asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
"""


def main() -> None:
    """Print one row a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    seconds = parser.parse_args().seconds
    for name, stalls in (("1000 stalls a minute", 1000), ("idle", 0)):
        cpu, peak = _measure(seconds, stalls)
        print(f"{name:22} {cpu / seconds:7.2%} of a core, {peak / 2**20:5.1f} MiB resident at most")


def _measure(seconds: float, stalls: int) -> tuple[float, int]:
    """(CPU seconds spent while the program ran, peak resident bytes) of the collector."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "program.py"
        program.write_text(_PROGRAM)
        recording = str(Path(directory) / "x.stall")
        command = [sys.executable, "-m", "stallscope", "run", "-o", recording, str(program), str(seconds), str(stalls)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            collector = psutil.Process(running.pid)
            running.stdout.readline()
            before = collector.cpu_times()
            running.stdout.readline()
            after, memory = collector.cpu_times(), collector.memory_info().rss
            running.stdin.write("\n")
            running.stdin.close()
        return after.user + after.system - before.user - before.system, memory


if __name__ == "__main__":
    main()
