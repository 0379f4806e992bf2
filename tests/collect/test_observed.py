"""One process's memory drained into a recording: nothing that a process writes can stop the collector."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stallscope.agent import layout
from stallscope.collect.collector import Collector
from stallscope.recording.nouns import Recording
from stallscope.recording.reader import read
from stallscope.recording.writer import Writer
from tests.collect.memories import STARTED_NS, THRESHOLD_NS, HandMadeMemory, stall_record

SECOND_NS = 1_000_000_000
GREETING = '{"pid": %d, "parent": 1, "runtime": "CPython 3.11.7"}'


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_ns = STARTED_NS

    def __call__(self) -> int:
        return self.now_ns


class Bench:
    """A collector with a clock of ours, and processes that are descriptors with a greeting."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, Clock()
        times: dict[str, Any] = {"started_ns": STARTED_NS, "started_wall_s": time.time()}
        self.collector = Collector(Writer(path, source="stallscope", threshold_ns=THRESHOLD_NS, **times), self.clock)

    def greet(self, memory: HandMadeMemory, greeting: str | None = None, fds: int = 1) -> None:
        """Come aboard as an agent does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(self.collector.socket_path)
            text = (GREETING % os.getpid() if greeting is None else greeting).encode()
            socket.send_fds(connection, [text], [memory.fd] * fds)
            self.tick()

    def tick(self, seconds: float = 1.5) -> None:
        """Let time pass, and drain."""
        self.clock.now_ns += int(seconds * SECOND_NS)
        self.collector.drain()

    def close(self) -> Recording:
        """The finished recording."""
        with self.collector:
            self.collector.finish()
        assert self.collector.stopped == ""
        return read(self.path)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A collector without processes."""
    return Bench(tmp_path / "x.stall")


def test_what_an_agent_writes_is_kept(bench: Bench) -> None:
    memory = HandMadeMemory()
    memory.loop(counts={5: 1000, 400: 1})
    memory.record(stall_record())
    bench.greet(memory)
    recording = bench.close()
    (loop,), (stall,), (process,) = recording.loops, recording.stalls, recording.processes
    assert dict(loop.counts) == {5: 1000, 400: 1}
    assert (stall.duration_ns, stall.finished, stall.task) == (50_000_000, True, "Task-1")
    call = stall.spans[0].call
    assert call is not None
    assert (call.name, call.resource and call.resource.name) == ("read", "/x")
    assert (process.pid, recording.complete) == (os.getpid(), True)
    assert (bench.collector.iterations, bench.collector.stalls, bench.collector.worst_ns) == (1001, 1, 50_000_000)


def test_an_iteration_in_progress_is_kept_as_a_stall(bench: Bench) -> None:
    memory = HandMadeMemory()
    memory.cells[memory.loop() + layout.L_STARTED] = STARTED_NS + SECOND_NS
    bench.greet(memory)
    bench.tick(2)
    (stall,) = bench.close().stalls
    assert (stall.finished, stall.start_ns, stall.duration_ns) == (False, STARTED_NS + SECOND_NS, 2_500_000_000)


def test_the_cpu_time_of_a_loops_thread_is_kept_from_when_it_was_first_seen(bench: Bench) -> None:
    memory = HandMadeMemory()
    memory.cells[memory.loop() + layout.L_TID] = threading.get_native_id()
    bench.greet(memory)
    spent_ns = time.thread_time_ns()
    while time.thread_time_ns() - spent_ns < 50_000_000:
        pass
    (loop,) = bench.close().loops
    assert loop.cpu_ns is not None
    assert 40_000_000 < loop.cpu_ns < time.thread_time_ns()  # the kernel counts by the tick


def test_the_cpu_time_of_a_thread_that_cannot_be_found_is_not_known(bench: Bench) -> None:
    memory = HandMadeMemory()
    memory.cells[memory.loop() + layout.L_TID] = 2**22 + 1  # above the kernel's highest
    bench.greet(memory)
    assert bench.close().loops[0].cpu_ns is None


@pytest.mark.parametrize(
    "changes",
    [
        {"loop": 63},
        {"loop": None},
        {"loop": "0"},
        {"start": None},
        {"start": -(2**70)},
        {"end": 2**80},
        {"end": 1e400},
        {"end": "soon"},
        {"end": 0},
        {"task": 7},
        {"task": {"a": 1}},
        {"task": "\ud800"},
        {"handler": 5},
        {"handler": ["only a name"]},
        {"handler": [{}, [], None]},
        {"handlers": [[99999, 1, 1]]},
        {"handlers": [[-1, 1, 1]]},
        {"handlers": [["x", "y", "z"]]},
        {"handlers": [[0, 2**90, 2**90]]},
        {"handlers": 1},
        {"frames": [["app.py", "four", "main"]]},
        {"frames": [[None, 2**90, None]]},
        {"frames": "app.py"},
        {"spans": [[1, 2, 3]]},
        {"spans": [[None] * 10]},
        {"spans": [["a", "b", "c", [0], None, "S", 1, 2, 3, 4]]},
        {"spans": [[1, 2, 3, [99], None, "S", 1, 2, 3, 4]]},
        {"spans": [[1, 2, 3, [0], [1, 2, 3, 4], "S", 1, 2, 3, 4]]},
        {"spans": [[1, 2, 3, [0], ["read", "planet", {}, []], 5, {}, [], 3, 4]]},
        {"spans": [[1, 2, 3, [0], ["read", "path", "\ud800", ""], "S", 2**90, -1, 3.5, "x"]]},
        {"gc": [[1, 2, 3]]},
        {"gc": [["a", {}, [], [0]]]},
        {"gc": None},
        {"executors": 1},
        {"executors": [["only a name"]]},
        {"executors": [["disk", False, "many", 1, 1, 1, 1, 1]]},
        {"executors": [["disk", False, None, 1e400, 1, 1, 1, 1]]},
    ],
    ids=str,
)
def test_a_record_of_another_form_is_passed_over(bench: Bench, changes: dict[str, object]) -> None:
    """Kept or noted, it neither raises nor harms the records after it, nor makes the file unreadable."""
    memory = HandMadeMemory()
    memory.loop(counts={5: 1})
    memory.record(stall_record(**changes))
    memory.record(stall_record(task="after"))
    bench.greet(memory)
    recording = bench.close()
    assert "after" in [stall.task for stall in recording.stalls]
    assert len(recording.stalls) == 2 or recording.notes


@pytest.mark.parametrize(
    "identity",
    [b"[]", b"\xff", b'{"kind": {"a": 1}, "name": [], "thread": null}', b'{"kind": "\\ud800"}', b"x" * 896],
    ids=["list", "bytes", "kinds", "surrogate", "long"],
)
def test_a_loop_without_an_identity(bench: Bench, identity: bytes) -> None:
    memory = HandMadeMemory()
    memory.loop(counts={5: 1}, identity=identity)
    bench.greet(memory)
    assert [dict(loop.counts) for loop in bench.close().loops] == [{5: 1}]


@pytest.mark.parametrize(
    "identity", [b"[]", b'{"line": "x"}', b'{"name": {}, "file": 1, "line": null}', b'{"line": 1e999}']
)
def test_a_handler_without_an_identity(bench: Bench, identity: bytes) -> None:
    memory = HandMadeMemory()
    memory.loop(counts={5: 1})
    memory.cells[layout.H_HANDLERS] = 1
    memory.cells[(layout.HANDLERS_AT + layout.HANDLER_HISTOGRAM_AT) // layout.CELL + 9] = 4
    memory.text(layout.HANDLERS_AT, identity)
    memory.record(stall_record())
    bench.greet(memory)
    recording = bench.close()
    assert [dict(handler.counts) for handler in recording.handlers] == [{9: 4}]


@pytest.mark.parametrize(
    "greeting",
    ["", "[]", "5", "{}", '{"pid": "x", "parent": 1, "runtime": ""}', '{"pid": 1e999, "parent": 1, "runtime": ""}',
     '{"pid": {}, "parent": [], "runtime": null}', '{"pid": -1, "parent": 1, "runtime": ""}', "x" * 4000, "[" * 4000],
)  # fmt: skip
def test_a_strange_greeting_is_noted(bench: Bench, greeting: str) -> None:
    memory = HandMadeMemory()
    memory.loop(counts={5: 1})
    bench.greet(memory, greeting or " ")
    bench.greet(memory)
    recording = bench.close()
    assert [dict(loop.counts) for loop in recording.loops if loop.pid == os.getpid()] == [{5: 1}]


def test_a_greeting_without_a_memory_is_noted(bench: Bench) -> None:
    bench.greet(HandMadeMemory(), fds=0)
    assert any("could not be observed" in note for note in bench.close().notes)


def test_a_foreign_memory_is_noted(bench: Bench) -> None:
    bench.greet(HandMadeMemory(magic=1))
    assert any("another version" in note for note in bench.close().notes)


@pytest.mark.parametrize("greeting", [None, "{}", "no json"])
def test_no_descriptor_is_left_open(bench: Bench, greeting: str | None) -> None:
    memory = HandMadeMemory()
    bench.tick()
    open_before = os.listdir("/proc/self/fd")
    bench.greet(memory, greeting, fds=3)
    bench.close()
    assert len(os.listdir("/proc/self/fd")) <= len(open_before)


def test_a_silent_connection_does_not_hold_up_the_others(bench: Bench) -> None:
    memory = HandMadeMemory()
    memory.loop(counts={5: 1})
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(bench.collector.socket_path)
        bench.greet(memory)
        recording = bench.close()
    assert [dict(loop.counts) for loop in recording.loops] == [{5: 1}]


def test_the_dead_are_bid_farewell_before_the_recording_ends(bench: Bench) -> None:
    """Whether their agent said goodbye or not."""
    for state in (layout.STATE_RUNNING, layout.STATE_FINISHED):
        child = os.posix_spawn("/bin/true", ["true"], {})
        memory = HandMadeMemory()
        memory.cells[layout.H_STATE] = state
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        bench.greet(memory, GREETING % child)
        os.waitpid(child, 0)
    assert [process.ending for process in bench.close().processes] == ["exited", "exited"]


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_survived(bench: Bench, seed: int) -> None:
    memory, noise = HandMadeMemory(), random.Random(seed)
    end = layout.HANDLERS_AT + 20 * layout.HANDLER_BYTES
    memory.bytes[8 * layout.H_RING_HEAD : end] = noise.randbytes(end - 8 * layout.H_RING_HEAD)
    memory.cells[layout.H_RING_TAIL] = max(0, memory.cells[layout.H_RING_HEAD] - 100)
    bench.greet(memory)
    healthy = HandMadeMemory()
    healthy.loop(counts={5: 1})
    bench.greet(healthy, GREETING % os.getppid())
    recording = bench.close()
    assert {5: 1} in [dict(loop.counts) for loop in recording.loops]
