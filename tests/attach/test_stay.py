"""Attach and detach, again and again, on every interpreter: the target goes on, and is as before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stallscope.agent.layout import bounds_ns
from stallscope.attach.facts import Facts
from stallscope.attach.payload import modules_for
from stallscope.recording.reader import read
from tests.attach.programs import program
from tests.attach.targets import PULSE, Client, Target, assert_seen, running, stay
from tests.interpreters import every_version, require

pytestmark = pytest.mark.usefixtures("ptrace")

# Wraps the wait of its loop when it is told to: around whatever is there, as a tracing library does.
WRAPPING = """
import asyncio, sys, threading
def wrap(selector):
    inner = selector.select
    def outer(timeout=None):
        return inner(timeout)
    selector.select = outer
    print("wrapped", flush=True)
async def main():
    loop = asyncio.get_running_loop()
    def told():
        for _ in sys.stdin:
            loop.call_soon_threadsafe(wrap, loop._selector)
    threading.Thread(target=told, daemon=True).start()
    print("ready", flush=True)
    while True:
        await asyncio.sleep(0.001)
asyncio.run(main())
"""
# Waits nearly all of its time, so that it is left in the middle of a wait.
WAITING = """
import asyncio
async def main():
    print("ready", flush=True)
    while True:
        await asyncio.sleep(0.02)
asyncio.run(main())
"""
CYCLES = 10  # of many more, which python -m tests.zoo.attach_matrix makes


@pytest.fixture(params=every_version(), scope="module")
def executable(request: pytest.FixtureRequest) -> str:
    return require(request.param).executable


@pytest.fixture(params=["alone", "pulse"])
def pulse(request: pytest.FixtureRequest) -> Path | None:
    if request.param == "pulse" and PULSE is None:
        pytest.skip("there is no pulse here")
    return PULSE if request.param == "pulse" else None


def cycles(target: Target, directory: Path, count: int, pulse: Path | None) -> None:
    modules = modules_for(Facts(target.pid))
    before = target.report()
    for _ in range(count):
        with stay(target, directory / "x.stall", modules, pulse=pulse) as (_collector, boarded):
            assert boarded.pause_ns > 0
            assert "_stallscope_agent" in target.report()["modules"]
        assert target.settled(before) == before


@pytest.mark.parametrize("kind", ["cpu", "read", "sleep", "lock", "select", "ticking"])
def test_leaves_no_trace(executable: str, kind: str, tmp_path: Path) -> None:
    with running(executable, kind) as target:
        cycles(target, tmp_path, CYCLES if kind == "cpu" else 5, PULSE)


def test_an_idle_loop_is_left_as_it_was(executable: str, pulse: Path | None, tmp_path: Path) -> None:
    with running(executable, "idle") as target:
        cycles(target, tmp_path, CYCLES, pulse)


def test_no_byte_of_a_busy_echo_server_is_wrong(executable: str, pulse: Path | None, tmp_path: Path) -> None:
    with running(executable, "echo") as target:
        before = target.report()
        client = Client(target.port)
        try:
            modules = modules_for(Facts(target.pid))
            for _ in range(CYCLES):
                with stay(target, tmp_path / "x.stall", modules, pulse=pulse) as (collector, _):
                    assert_seen(collector)
        finally:
            client.end()
        assert client.wrong == ""
        assert client.exchanges > CYCLES
        assert target.settled(before) == before  # its connection may take a moment to close


def test_a_wait_that_the_program_wraps_while_we_are_there_is_its_own(executable: str, tmp_path: Path) -> None:
    with program(executable, "-c", WRAPPING) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            with stay(process, tmp_path / "x.stall", pulse=None) as (collector, _):
                assert_seen(collector)
                process.stdin.write(b"wrap\n")
                process.stdin.flush()
                assert process.stdout.readline() == b"wrapped\n"
        assert process.poll() is None


def test_the_time_between_two_stays_is_no_iteration(tmp_path: Path) -> None:
    with program(sys.executable, "-c", WAITING) as process:
        modules = modules_for(Facts(process.pid))
        for _ in range(CYCLES):
            with stay(process, tmp_path / "x.stall", modules) as (collector, _):
                assert_seen(collector)
            recording = read(tmp_path / "x.stall")
            longest_ns = max(bounds_ns(bucket)[0] for loop in recording.loops for bucket in loop.counts)
            assert longest_ns < recording.ended_ns - recording.started_ns


def test_a_busy_loop_is_one_loop(tmp_path: Path) -> None:
    with running(sys.executable, "cpu") as target:
        modules = modules_for(Facts(target.pid))
        for _ in range(2 * CYCLES):
            with stay(target, tmp_path / "x.stall", modules) as (collector, _):
                assert_seen(collector)
            assert [loop.kind for loop in read(tmp_path / "x.stall").loops] == ["asyncio"]
