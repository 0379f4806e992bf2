"""Attach and detach, again and again, on every interpreter: the target goes on, and is as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope.attach.facts import Facts
from stallscope.attach.payload import modules_for
from tests.attach.targets import Client, Target, assert_seen, running, stay
from tests.interpreters import every_version, require

pytestmark = pytest.mark.usefixtures("ptrace")

CYCLES = 20


@pytest.fixture(params=every_version(), scope="module")
def executable(request: pytest.FixtureRequest) -> str:
    return require(request.param).executable


def cycles(target: Target, directory: Path, count: int) -> None:
    modules = modules_for(Facts(target.pid))
    before = target.report()
    for _ in range(count):
        with stay(target, directory / "x.stall", modules) as (_collector, boarded):
            assert boarded.pause_ns > 0
            assert "_stallscope_agent" in target.report()["modules"]
        assert target.settled(before) == before


@pytest.mark.parametrize("kind", ["cpu", "read", "sleep", "lock", "select", "ticking"])
def test_leaves_no_trace(executable: str, kind: str, tmp_path: Path) -> None:
    with running(executable, kind) as target:
        cycles(target, tmp_path, CYCLES if kind == "cpu" else 5)


def test_an_idle_loop_is_left_as_it_was(executable: str, tmp_path: Path) -> None:
    with running(executable, "idle") as target:
        cycles(target, tmp_path, CYCLES)


@pytest.mark.slow
def test_no_byte_of_a_busy_echo_server_is_wrong(executable: str, tmp_path: Path) -> None:
    with running(executable, "echo") as target:
        before = target.report()
        client = Client(target.port)
        try:
            modules = modules_for(Facts(target.pid))
            for _ in range(CYCLES):
                with stay(target, tmp_path / "x.stall", modules) as (collector, _):
                    assert_seen(collector)
        finally:
            client.end()
        assert client.wrong == ""
        assert client.exchanges > CYCLES
        after = target.report()
        wanted = {**before, "fds": after["fds"]}  # its connection may not be closed yet
        assert target.settled(wanted) == wanted
