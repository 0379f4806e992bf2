"""Every Python process of the program is observed, each under its own pid, and only where that is wanted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from stallscope.analysis.examine import examine
from tests.end_to_end.observing import (
    PATIENCE_S,
    await_line,
    end,
    loops_of,
    observed,
    process_of,
    recorded,
    stalled_functions,
    start,
    write,
)

# Each process stalls in a function of its own name and prints that name with its pid.
WORK = """
    import asyncio, json, os, sys, time

    def first(): time.sleep(0.05)
    def second(): time.sleep(0.05)
    def third(): time.sleep(0.05)
    def parent(): time.sleep(0.05)

    async def stall(function):
        for _ in range(3):
            await asyncio.sleep(0.001)
            function()
        await asyncio.sleep(0)

    def work(name):
        asyncio.run(stall(globals()[name]))
        sys.stdout.write(json.dumps([name, os.getpid()]) + "\\n")
        sys.stdout.flush()
"""

FORK = """
    import os
    from work import work

    children = []
    for name in ("first", "second", "third"):
        pid = os.fork()
        if not pid:
            work(name)
            os._exit(0)
        children.append(pid)
    work("parent")
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
"""

FORK_INSIDE_THE_LOOP = """
    import asyncio, os
    from work import stall, work, parent

    async def main():
        await stall(parent)
        pid = os.fork()
        if not pid:
            asyncio.events._set_running_loop(None)
            work("first")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    asyncio.run(main())
    print('["parent", %d]' % os.getpid())
"""

MULTIPROCESSING = """
    import multiprocessing, sys
    from work import work

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        workers = [context.Process(target=work, args=(name,)) for name in ("first", "second")]
        for worker in workers:
            worker.start()
        work("parent")
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
"""

POOL = """
    from concurrent.futures import ProcessPoolExecutor
    from work import work

    if __name__ == "__main__":
        with ProcessPoolExecutor(1) as pool:
            pool.submit(work, "first").result()
        work("parent")
"""

SUBPROCESS = """
    import subprocess, sys
    from work import work

    if sys.argv[1:]:
        work(sys.argv[1])
    else:
        subprocess.run([sys.executable, __file__, "first"], check=True)
        subprocess.run(["sh", "-c", '"$0" "$1" second; true', sys.executable, __file__], check=True)
        work("parent")
"""


def workers(stdout: bytes) -> dict[str, int]:
    """The pid under which each name worked."""
    pairs = [json.loads(line) for line in stdout.splitlines() if line.startswith(b"[")]
    return dict(pairs)


def assert_each_is_seen(cwd: Path, pids: dict[str, int]) -> None:
    """One process row, loops, and stalls in its own function alone, for each name."""
    recording = recorded(cwd)
    functions = stalled_functions(recording)
    names = set(pids)
    for name, pid in pids.items():
        assert process_of(recording, pid).pid == pid
        assert sum(sum(loop.counts.values()) for loop in loops_of(recording, pid)) > 3
        assert functions[pid] & names == {name}
    assert set(functions) == set(pids.values())


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (FORK, ()),
        (FORK_INSIDE_THE_LOOP, ()),
        (MULTIPROCESSING, ("fork",)),
        (MULTIPROCESSING, ("spawn",)),
        (MULTIPROCESSING, ("forkserver",)),
        (POOL, ()),
        (SUBPROCESS, ()),
    ],
    ids=["fork", "fork inside the loop", "mp fork", "mp spawn", "mp forkserver", "pool", "subprocess"],
)
def test_children_are_followed(tmp_path: Path, program: str, words: tuple[str, ...]) -> None:
    write(tmp_path, "work.py", WORK)
    write(tmp_path, "program.py", program)
    watched = observed(tmp_path, "program.py", *words)
    assert (watched.code, watched.stderr) == (0, b"")
    pids = workers(watched.stdout)
    assert len(pids) >= 2
    assert_each_is_seen(tmp_path, pids)


@pytest.mark.parametrize(
    ("program", "words"),
    [(FORK, ()), (MULTIPROCESSING, ("spawn",)), (MULTIPROCESSING, ("forkserver",)), (SUBPROCESS, ())],
    ids=["fork", "mp spawn", "mp forkserver", "subprocess"],
)
def test_children_are_left_alone(tmp_path: Path, program: str, words: tuple[str, ...]) -> None:
    write(tmp_path, "work.py", WORK)
    write(tmp_path, "program.py", program)
    watched = observed(tmp_path, "--no-follow-children", "program.py", *words)
    assert (watched.code, watched.stderr) == (0, b"")
    pid = workers(watched.stdout)["parent"]
    assert_each_is_seen(tmp_path, {"parent": pid})
    assert [process.pid for process in recorded(tmp_path).processes] == [pid]


def test_exec_makes_a_new_image_of_the_same_process(tmp_path: Path) -> None:
    write(tmp_path, "work.py", WORK)
    program = """
        import os, sys
        from work import work

        names = sys.argv[1:]
        work(names[0])
        if names[1:]:
            os.execv(sys.executable, [sys.executable, __file__, *names[1:]])
    """
    write(tmp_path, "program.py", program)
    watched = observed(tmp_path, "program.py", "first", "second", "third")
    pids = workers(watched.stdout)
    assert (watched.code, len(set(pids.values()))) == (0, 1)
    recording = recorded(tmp_path)
    assert [process.pid for process in recording.processes] == list(pids.values())
    assert [process.ending for process in recording.processes] == ["replaced", "replaced", "exited"]
    assert stalled_functions(recording)[pids["first"]] >= {"first", "second", "third"}
    assert [loop.stall_count >= 3 for loop in examine(recording).loops] == [True, True, True]


PRE_FORK_SERVER = """
    import asyncio, json, os, signal, socket, sys, time
    from work import first, second, third

    async def serve(listener, function):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: ended.set())
        ended = asyncio.Event()
        async def answer(reader, writer):
            await reader.readline()
            function()
            writer.write(json.dumps([function.__name__, os.getpid()]).encode() + b"\\n")
            await writer.drain()
            writer.close()
        async with await asyncio.start_server(answer, sock=listener):
            await ended.wait()

    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    children = []
    for listener, function in zip(listeners, (first, second, third)):
        pid = os.fork()
        if not pid:
            asyncio.run(serve(listener, function))
            sys.exit(0)
        children.append(pid)

    def stop(number, frame):
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    print("ready", json.dumps([listener.getsockname()[1] for listener in listeners]), flush=True)
    while True:
        signal.pause()
"""


def ask(port: int, request: bytes = b"work\n") -> list[object]:
    """One request to a worker; the JSON in the last line of its answer."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection,
        connection.makefile("rwb") as f,
    ):
        f.write(request)
        f.flush()
        answer: list[object] = json.loads(f.read().splitlines()[-1])
        return answer


def test_the_workers_of_a_pre_fork_server(tmp_path: Path) -> None:
    write(tmp_path, "work.py", WORK)
    write(tmp_path, "server.py", PRE_FORK_SERVER)
    process = start(tmp_path, "server.py")
    ports = json.loads(await_line(process.stdout))
    answers = [ask(port) for port in ports for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    watched = end(process)
    assert (watched.code, watched.stderr) == (0, b"")
    pids = {str(name): int(str(pid)) for name, pid in answers}
    functions = stalled_functions(recorded(tmp_path))
    assert {pid: found & set(pids) for pid, found in functions.items()} == {pid: {name} for name, pid in pids.items()}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with gunicorn and uvicorn for PYTHONPATH; skips where they cannot be installed."""
    directory = tmp_path_factory.mktemp("servers")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(directory)]
    done = subprocess.run([*pip, "gunicorn", "uvicorn", "uvicorn-worker"], capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"gunicorn and uvicorn cannot be installed here: {done.stderr.strip()[-200:]}")
    return directory


APPLICATION = """
    import json, os
    from work import first

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        first()
        body = json.dumps(["first", os.getpid()]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""
WORKER = """
    from uvicorn_worker import UvicornWorker

    class Worker(UvicornWorker):
        CONFIG_KWARGS = {"loop": "asyncio", "http": "h11"}  # not uvloop, should that be installed
"""
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


SERVERS = [
    ("gunicorn", "-k", "worker.Worker", "--workers", "2", "-b", "127.0.0.1:{port}"),
    ("uvicorn", "--loop", "asyncio", "--workers", "2", "--port", "{port}"),
    ("uvicorn", "--loop", "asyncio", "--port", "{port}"),
]


def test_the_workers_of_real_servers(tmp_path: Path, servers: Path) -> None:
    """One test and no parameters: the servers are installed once, whoever runs the tests."""
    write(tmp_path, "work.py", WORK)
    write(tmp_path, "app.py", APPLICATION)
    write(tmp_path, "worker.py", WORKER)
    for words in SERVERS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        assert_workers_are_seen(tmp_path, servers, [word.format(port=port) for word in words], port)


def assert_workers_are_seen(cwd: Path, servers: Path, words: list[str], port: int) -> None:
    """Each worker that answered has stalled under its own pid."""
    settings = {**os.environ, "PYTHONPATH": str(servers)}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = start(cwd, "--force", "-m", *words, "app:application", env=settings, **streams)
    try:
        await_listening(port, process)
        pids = {int(str(ask(port, GET)[1])) for _ in range(8)}
    finally:
        process.terminate()
        watched = end(process)
    assert watched.code in (0, -signal.SIGTERM), watched
    functions = stalled_functions(recorded(cwd))
    assert set(functions) >= pids
    assert all("first" in functions[pid] for pid in pids)


def await_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server accepts connections."""
    while process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        os.sched_yield()
    raise AssertionError(f"the server ended: {end(process)}")


def test_workers_that_only_the_pulse_can_see_are_named(tmp_path: Path) -> None:
    """A forked worker with a loop of uvloop's never meets asyncio's hooks; its parent has a loop that is seen."""
    pytest.importorskip("uvloop")
    program = """
        import asyncio, os, sys
        import uvloop

        pid = os.fork()
        if not pid:
            uvloop.run(asyncio.to_thread(sys.stdin.read))
            os._exit(0)
        print("ready", flush=True)
        asyncio.run(asyncio.to_thread(os.waitpid, pid, 0))
    """
    write(tmp_path, "program.py", program)
    process = start(tmp_path, "--no-pulse", "program.py")
    await_line(process.stdout)
    while not any("uvloop" in missing.what for missing in recorded(tmp_path).fidelity.missing):
        assert process.poll() is None
        os.sched_yield()
    watched = end(process, b"")
    assert watched.code == 0
    assert "uvloop needs the pulse" in watched.said
