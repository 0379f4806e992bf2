"""What the agent aboard a test session tells of each test: in a process of its own, where nothing else is aboard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BEGINNING = """
import asyncio, json, os, sys, time
from pathlib import Path
from stallscope.testing.aboard import Aboard

def descriptors():
    return len(os.listdir("/proc/self/fd"))

async def stall(seconds):
    time.sleep(seconds)

aboard = Aboard(Path("x.stall"), 10_000_000, "a test")
aboard.start()
"""


def told(program: str, cwd: Path) -> Any:
    """What a program prints that came aboard."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + program], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_details_that_nobody_asked_for_are_not_the_next_tests(tmp_path: Path) -> None:
    program = """
asyncio.run(stall(0.05))
first = aboard.look()
asyncio.run(stall(0.03))
second = aboard.look()
details = aboard.details(second, 20_000_000)
print(json.dumps([first.stalls, second.stalls, [stall.duration_ns for stall in details.stalls], details.lacking]))
aboard.finish()
"""
    first, second, (duration_ns,), lacking = told(program, tmp_path)
    assert (first, second, lacking) == (1, 1, 0)
    assert 30e6 <= duration_ns < 50e6


def test_each_look_tells_what_a_loop_did_that_runs_on_in_another_thread(tmp_path: Path) -> None:
    program = """
import threading

async def nothing():
    pass

loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()

def looked(stalls):
    for work in [*(stall(0.02) for _ in range(stalls)), nothing()]:  # which begins when the stalls have ended
        asyncio.run_coroutine_threadsafe(work, loop).result()
    return aboard.look().stalls

seen = [looked(1), looked(0), looked(2)]
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
print(json.dumps([*seen, aboard.look().stalls, aboard.look().stalls]))
aboard.finish()
"""
    assert told(program, tmp_path) == [1, 0, 2, 0, 0]


def test_loops_come_and_go_without_opening_or_leaving_a_descriptor(tmp_path: Path) -> None:
    program = """
opened = []
sys.addaudithook(lambda event, args: event == "open" and "/proc/self/task" in str(args[0]) and opened.append(args[0]))
before = descriptors()
for _ in range(3):
    asyncio.run(stall(0.02))
between, during = descriptors(), len(opened)
aboard.finish()
print(json.dumps([before, between, during, descriptors()]))
"""
    before, between, during, after = told(program, tmp_path)
    assert between == before
    assert during == 0
    assert after <= before - 3


def test_each_run_of_a_loop_is_measured_whoever_ran_in_between(tmp_path: Path) -> None:
    """A test runs its loop again and again: the slot is opened again, by what was known of it."""
    program = """
def ran_in(loop):
    loop.run_until_complete(stall(0.02))
    return aboard.look().stalls

first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
stalls = [ran_in(loop) for loop in (first, first, second, first, second, second)]
left = [loop for loop in (first, second) if hasattr(loop, "_stallscope_state")]
open_loops = len(aboard._agent.open_loops)
first.close()
second.close()
third = asyncio.new_event_loop()
stalls.append(ran_in(third))
third.close()
aboard.finish()
from stallscope.recording.reader import read
recording = read(Path("x.stall"))
print(json.dumps([stalls, len(left), open_loops, len(recording.stalls), [loop.kind for loop in recording.loops]]))
"""
    stalls, left, still_open, recorded, kinds = told(program, tmp_path)
    assert stalls == [1] * 7
    assert (left, still_open, recorded, kinds) == (0, 0, 7, ["asyncio"])


def test_a_loop_that_is_run_inside_another_ones_handler_does_not_share_its_slot(tmp_path: Path) -> None:
    program = """
inner, outer = asyncio.new_event_loop(), asyncio.new_event_loop()
inner.run_until_complete(stall(0.02))

async def nests():
    asyncio.events._set_running_loop(None)
    inner.run_until_complete(stall(0.03))
    asyncio.events._set_running_loop(outer)

aboard.look()
outer.run_until_complete(nests())
print(json.dumps([aboard.look().stalls, len(aboard._agent.open_loops)]))
aboard.finish()
"""
    stalls, still_open = told(program, tmp_path)
    assert (stalls, still_open) == (2, 0)  # the outer handler lasted as long as the inner one, and some more


def test_an_iteration_that_is_long_but_no_stall_is_told_of_any_loop(tmp_path: Path) -> None:
    """A look reads no histogram unless a long iteration was counted beside it; of loops by epoll and by select."""
    program = """
import selectors
from stallscope.agent import layout

longest_ms = []
for selector in (selectors.DefaultSelector(), selectors.SelectSelector()):
    loop = asyncio.SelectorEventLoop(selector)
    loop.run_until_complete(stall(0.004))
    longest_ms.append(aboard.look().longest_ns / 1e6)
    longest_ms.append(aboard.look().longest_ns / 1e6)
    loop.close()
aboard.finish()
print(json.dumps(longest_ms))
"""
    first, after_it, second, after_that = told(program, tmp_path)
    assert (after_it, after_that) == (0, 0)
    assert min(first, second) >= 3.8  # a bucket is 3 % wide
