"""Findings that are no line's, in real programs: a crowd of short handlers, and a loop that never waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.observing import STALLSCOPE, execute

CROWDED = """
import asyncio, time

def short():
    until = time.perf_counter_ns() + 300_000
    while time.perf_counter_ns() < until:
        pass

async def main():
    loop = asyncio.get_running_loop()
    for _ in range(12):
        for _ in range(100):
            loop.call_soon(short)
        await asyncio.sleep(0.05)

asyncio.run(main())
"""

SATURATED = """
import asyncio, time

async def busy(until):
    while time.monotonic() < until:
        for _ in range(2000):
            pass
        await asyncio.sleep(0)

async def main():
    await asyncio.gather(*(busy(time.monotonic() + 1.5) for _ in range(3)))

asyncio.run(main())
"""


def findings(directory: Path, program: str, *options: str) -> dict[str, Any]:
    (directory / "program.py").write_text(program)
    watched = execute((*STALLSCOPE, "run", *options, "-o", "x.stall", "program.py"), directory)
    assert watched.code == 0, watched
    found: dict[str, Any] = json.loads(execute((*STALLSCOPE, "analyze", "x.stall", "--json"), directory).stdout)
    return found


def test_a_crowd_of_short_handlers_is_a_pile_up(tmp_path: Path) -> None:
    """No call of it is a stall, and no line is to blame: what stalls is their number.  The pulse does not tell yet how
    often a handler ran in a stall."""
    found = findings(tmp_path, CROWDED, "--no-pulse")
    shares = {one["cause"]: one["share"] for one in found["causes"]}
    if shares.get("descheduled", 0) > 0.25:
        pytest.skip("the machine had no CPU to spare: calls that wait for one are long")
    crowd = next(one for one in found["culprits"] if one["cause"] != "descheduled")
    assert (crowd["kind"], crowd["location"]) == ("pile-up", None)
    assert crowd["handlers"][0]["name"] == "short"
    assert crowd["handlers"][0]["calls"] > 20 * crowd["stalls"]
    assert "asyncio.sleep(0)" in crowd["advice"]["code"]


def test_a_loop_that_never_waits_is_saturated(tmp_path: Path) -> None:
    found = findings(tmp_path, SATURATED)
    assert "saturation" in [one["kind"] for one in found["culprits"]]
    assert found["loops"][0]["saturated"] is True
