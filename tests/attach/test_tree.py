"""A process and its children: those that are there, and those born later; forked, spawned, and of another program."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stallscope.attach.facts import Facts
from stallscope.attach.tree import descendants, is_master
from stallscope.recording.nouns import Stall
from stallscope.recording.reader import read
from tests.attach.programs import TICKING, program
from tests.attach.targets import PATIENCE_S

pytestmark = pytest.mark.usefixtures("ptrace")

MEMORY = "memfd:stallscope ("  # the agent's; the pulse's library stays
ATTACH = (sys.executable, "-m", "stallscope", "attach")
# A master without a loop; it starts a worker for each line on stdin, forked or spawned, and says its number.
MASTER = f"""
import os, subprocess, sys
print('ready', flush=True)
for line in sys.stdin:
    if line == 'fork\\n':
        pid = os.fork()
        if not pid:
            exec({TICKING!r})
    else:
        pid = subprocess.Popen([sys.executable, '-c', {TICKING!r}]).pid
    print(pid, flush=True)
"""


@contextmanager
def master() -> Iterator[subprocess.Popen[bytes]]:
    with program(sys.executable, "-c", MASTER) as process:
        try:
            yield process
        finally:
            for child in descendants(process.pid):
                os.kill(child, signal.SIGKILL)


def worker(process: subprocess.Popen[bytes], how: str) -> int:
    """A new worker's number, once its loop runs."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(how.encode() + b"\n")
    process.stdin.flush()
    lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
    assert b"ready" in lines
    return int((lines - {b"ready"}).pop())


def attached(pid: int, *options: str, cwd: Path) -> subprocess.Popen[str]:
    command = (*ATTACH, str(pid), "-o", "x.stall", *options)
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)


def until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Its lines, up to one with these words."""
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or words not in lines[-1]:
        line = process.stderr.readline()
        assert line, lines
        lines.append(line)
    return lines


def finished(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0, said
    return said


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_that_are_there_and_one_born_later(how: str, tmp_path: Path) -> None:
    with master() as process:
        first = worker(process, how)
        stallscope = attached(process.pid, "--children", "--duration", "60s", cwd=tmp_path)
        until(stallscope, f"aboard process {first}")
        second = worker(process, how)
        until(stallscope, f"aboard process {second}")
        until_iterations(stallscope, 0.5)
        said = finished(stallscope)
        assert f"process {first}: " in said
        assert f"process {second}: " in said
        for pid in (process.pid, first, second):
            assert MEMORY not in Path(f"/proc/{pid}/maps").read_text()
    recording = read(tmp_path / "x.stall")
    assert {one.pid for one in recording.processes} == {process.pid, first, second}
    assert {stall.loop_id for stall in recording.stalls} == {loop.id for loop in recording.loops}


def until_iterations(stallscope: subprocess.Popen[str], seconds: float) -> None:
    """The loops run by themselves; what is awaited is that some of their time passes."""
    with pytest.raises(subprocess.TimeoutExpired):
        stallscope.wait(seconds)


def test_without_children_a_forked_worker_is_not_recorded_and_sheds_what_it_inherited(tmp_path: Path) -> None:
    with master() as process:
        stallscope = attached(process.pid, "--duration", "60s", cwd=tmp_path)
        until(stallscope, f"aboard process {process.pid}")
        forked = worker(process, "fork")
        assert "no asyncio loop" in finished(stallscope)
        limit = time.monotonic() + PATIENCE_S
        while MEMORY in Path(f"/proc/{forked}/maps").read_text() and time.monotonic() < limit:
            time.sleep(0.01)
        assert MEMORY not in Path(f"/proc/{forked}/maps").read_text()


def test_a_shell_is_watched_for_its_python_children(tmp_path: Path) -> None:
    with program("sh", "-c", '"$0" -c "$1"; :', sys.executable, TICKING) as shell:
        child = descendants(shell.pid)[0]
        stallscope = attached(shell.pid, "--children", "--duration", "60s", cwd=tmp_path)
        lines = until(stallscope, f"aboard process {child}")
        assert "is not Python; its Python children are watched" in lines[0]
        os.kill(child, signal.SIGKILL)
        said = stallscope.communicate(timeout=PATIENCE_S)[1]
        assert stallscope.returncode == 0
        assert "the process ended" in said


def test_nobody_to_watch_is_exit_code_3(tmp_path: Path) -> None:
    with program("sleep", "1000", ready=False) as process:
        stallscope = attached(process.pid, "--children", cwd=tmp_path)
        said = stallscope.communicate(timeout=PATIENCE_S)[1]
        assert stallscope.returncode == 3
        assert "has no Python child" in said
    assert list(tmp_path.iterdir()) == []


APPLICATION = """
import os, time
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    if os.path.exists("slow-%d" % os.getpid()):
        time.sleep(0.03)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""


@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="uvicorn is not installed")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_blocking_worker_of_a_uvicorn_master_is_found_and_the_others_are_clean(loop: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(loop) is None:
        pytest.skip(f"{loop} is not installed")
    (tmp_path / "application.py").write_text(APPLICATION)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (
        sys.executable,
        "-m",
        "uvicorn",
        "application:app",
        "--workers",
        "3",
        "--loop",
        loop,
        "--port",
        str(port),
    )
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        workers = answering(port, 3)
        (tmp_path / f"slow-{min(workers)}").touch()
        assert is_master(Facts(server.pid))
        stallscope = attached(server.pid, "--duration", "60s", cwd=tmp_path)
        until(stallscope, f"aboard process {max(workers)}")
        loads = [threading.Thread(target=answering, args=(port, 3, 40)) for _ in range(3)]
        for load in loads:
            load.start()
        for load in loads:
            load.join()
        finished(stallscope)
    finally:
        server.terminate()
        server.wait()
    recording = read(tmp_path / "x.stall")
    pids = {
        loop.id: next(one.pid for one in recording.processes if one.id == loop.process_id) for loop in recording.loops
    }
    blocking = [stall for stall in recording.stalls if any("sleep" in name for name in calls(stall))]
    assert {pids[stall.loop_id] for stall in blocking} == {min(workers)}


def calls(stall: Stall) -> set[str]:
    """The calls in a stall, sampled or timed; ``time.sleep`` is a ``select`` before 3.11."""
    names = {span.call.name for span in stall.spans if span.call} | {one.call.name for one in stall.calls}
    return {"sleep" if name in ("select", "pselect6") else name for name in names}


def answering(port: int, count: int, more: int = 0) -> set[int]:
    """The workers that answer, when there are as many, and so many requests more have been answered."""
    found: set[int] = set()
    limit = time.monotonic() + PATIENCE_S
    while (len(found) < count or more > 0) and time.monotonic() < limit:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S) as answer:
                found.add(int(answer.read()))
                more -= 1
        except OSError:
            time.sleep(0.05)
    return found
