"""The sample server: right bodies under every remedy, stalls where it says and nowhere else."""

from __future__ import annotations

import http.client
import http.server
import importlib.util
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

SAMPLES = Path(__file__).parents[2] / "samples"
SERVER = SAMPLES / "file_server.py"

# System call -> (function, the call in its line, resource)
BLOCKING = {
    "openat": ("open_file", "os.open(", "*/archive/*.bin"),
    "read": ("read_block", "os.read(", "*/cold/*.bin"),
    "write": ("AccessLog.write_page", "os.write(", "*/access.log"),
}
LEFT = {  # what still blocks the loop under each fix
    "none": {"openat", "read", "write"},
    "read-offload": {"openat", "write"},
    "open-read-offload": {"write"},
    "sendfile": {"write"},
    "buffered-log": {"openat", "read"},
    "syslog": {"openat", "read"},
    "all": set(),
}
SYSCALL_NUMBERS = {
    "x86_64": {"257": "openat", "0": "read", "1": "write"},
    "aarch64": {"56": "openat", "63": "read", "64": "write"},
}.get(platform.machine(), {})


def sample_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slow_storage = sample_module("slow_storage")
if not slow_storage.leases_work():
    pytest.skip("no file leases here, so open() of archive/ does not wait", allow_module_level=True)


def fix_arguments(fix: str) -> list[str]:
    return [] if fix == "none" else ["--fix", fix]


class Server:
    """A running sample, in a directory of temporary files of its own."""

    def __init__(self, *arguments: str) -> None:
        self.directory = tempfile.TemporaryDirectory()  # a short path: it holds a Unix socket
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": self.directory.name},
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline().removeprefix("ready "))
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        still_running(self.children)
        self.directory.cleanup()

    def get(self, *paths: str) -> list[tuple[int, bytes]]:
        """The answers to several requests on one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        answers = []
        for path in paths:
            connection.request("GET", path)
            response = connection.getresponse()
            answers.append((response.status, response.read()))
        connection.close()
        return answers

    def end(self, by: signal.Signals | None = None) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, once it has ended by itself or by a signal."""
        if by is not None:
            self.process.send_signal(by)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def leftovers(self) -> list[object]:
        """The processes still running and the files still there after its end."""
        return [*still_running(self.children), *os.listdir(self.directory.name)]


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that do not end within ten seconds.

    `psutil.wait_procs` will not do: the children of a killed server fall to process 1, which in
    many containers never reaps them.
    """
    deadline = time.monotonic() + 10
    while True:
        alive = [process for process in processes if is_running(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.01)


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class CallSampler:
    """Looks again and again at the system call that each thread of a process is in."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.looks = 0
        self.in_loop: Counter[str] = Counter()  # looks that found the loop's thread in the call
        self.most_in_pool = 0  # threads beside the loop's in such a call, at once

    def run(self, process: subprocess.Popen[str]) -> None:
        """Look about a thousand times a second until the process ends."""
        while process.poll() is None:
            self.look()
            time.sleep(0.001)

    def look(self) -> None:
        tids = [int(tid) for tid in os.listdir(f"/proc/{self.pid}/task")]
        calls = {tid: self.blocking_call(tid) for tid in tids}
        self.looks += 1
        self.in_loop[calls.pop(self.pid)] += 1
        self.most_in_pool = max(self.most_in_pool, sum(map(bool, calls.values())))

    def blocking_call(self, tid: int) -> str:
        """`openat`, `read` or `write`, where it is made on the slow storage, else ""."""
        try:
            number, *arguments = Path(f"/proc/{self.pid}/task/{tid}/syscall").read_text().split()
            name = SYSCALL_NUMBERS.get(number, "")
            return name if name and fnmatch(self.path_of(name, arguments), BLOCKING[name][2]) else ""
        except (OSError, ValueError):  # the call, the thread or the process has ended meanwhile
            return ""

    def path_of(self, name: str, arguments: list[str]) -> str:
        if name != "openat":
            return os.readlink(f"/proc/{self.pid}/fd/{int(arguments[0], 16)}")
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(int(arguments[1], 16))
            return memory.read(256).partition(b"\0")[0].decode()


class Demo:
    """One run of `--demo` under one fix, and what was seen of it from outside."""

    def __init__(self, fix: str) -> None:
        self.fix = fix
        with Server("--demo", "2", *fix_arguments(fix)) as server:
            self.calls = CallSampler(server.process.pid)
            self.calls.run(server.process)
            self.exit_code, self.out, self.err = server.end()
            self.leftovers = server.leftovers()


@pytest.fixture(scope="module", params=LEFT)
def demo(request: pytest.FixtureRequest) -> Demo:
    return Demo(request.param)


@pytest.fixture(params=["none", "read-offload", "open-read-offload", "sendfile", "all"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(*fix_arguments(request.param)) as running:
        yield running


def test_demo_serves_right_bodies_and_logs_every_request(demo: Demo) -> None:
    assert (demo.exit_code, demo.err) == (0, "")
    transfers, metadata = re.findall(r"(\d+) GET", demo.out)
    assert " 0 errors" in demo.out
    served, logged = re.findall(r"served (\d+) requests, (\d+) lines", demo.out)[0]
    assert int(served) == int(transfers) + int(metadata)
    if demo.fix != "syslog":  # a datagram may be dropped
        assert logged == served


def test_demo_leaves_nothing_behind(demo: Demo) -> None:
    assert demo.leftovers == []


def can_look_at_other_processes() -> bool:
    with subprocess.Popen(["sleep", "9"]) as child:
        try:
            return bool(SYSCALL_NUMBERS) and bool(Path(f"/proc/{child.pid}/syscall").read_text())
        except OSError:
            return False
        finally:
            child.kill()


needs_call_numbers = pytest.mark.skipif(
    not can_look_at_other_processes(),
    reason="/proc/PID/syscall is missing or closed to us, or numbers calls in a way we don't know",
)


@needs_call_numbers
def test_loop_blocks_in_the_calls_that_are_left_and_in_no_other(demo: Demo) -> None:
    left = LEFT[demo.fix]
    shares = {name: demo.calls.in_loop[name] / demo.calls.looks for name in BLOCKING}
    assert demo.calls.looks > 100
    assert {name for name, share in shares.items() if share > 0.02} == left, shares
    assert all(shares[name] < 0.002 for name in BLOCKING if name not in left), shares


@needs_call_numbers
def test_storage_serves_several_calls_at_once() -> None:
    with Server("--fix", "open-read-offload", "--demo", "30") as server:
        calls = CallSampler(server.process.pid)
        while calls.most_in_pool < 2 and server.process.poll() is None:
            calls.look()
        assert calls.most_in_pool >= 2
        assert server.end(by=signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("fix", LEFT)
def test_truth_names_the_lines_that_block(fix: str) -> None:
    command = [sys.executable, str(SERVER), "--print-truth", *fix_arguments(fix)]
    culprits: list[dict[str, Any]] = json.loads(subprocess.check_output(command))
    assert {culprit["syscall"] for culprit in culprits} == LEFT[fix]
    for culprit in culprits:
        function, call, resource = BLOCKING[culprit["syscall"]]
        line = Path(culprit["file"]).read_text().splitlines()[culprit["line"] - 1]
        assert call in line
        assert (culprit["function"], culprit["resource"]) == (function, resource)
        assert culprit["delay_ms"] >= 20


def test_fixes_may_be_combined_in_either_way() -> None:
    for arguments in (["--fix", "open-read-offload,syslog"], ["--fix", "sendfile", "--fix", "buffered-log"]):
        command = [sys.executable, str(SERVER), "--print-truth", *arguments]
        assert json.loads(subprocess.check_output(command)) == []


def test_unknown_fix_is_refused_with_the_names_that_exist() -> None:
    run = subprocess.run([sys.executable, str(SERVER), "--fix", "magic"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "magic" in run.stderr
    assert "read-offload" in run.stderr


def test_taken_port_is_one_clear_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = subprocess.run([sys.executable, str(SERVER), "--port", port], capture_output=True, text=True)
    assert run.returncode == 1
    assert port in run.stderr
    assert "Traceback" not in run.stderr


def test_one_connection_serves_many_requests(server: Server) -> None:
    names = ["warm/0.bin", "archive/2014/03/27/backup/0.bin", "cold/0.bin", "cold/0.bin"]
    answers = server.get("/files/nothing", *(f"/files/{name}" for name in names), "/meta/cold/1.bin", "/")
    assert [status for status, _ in answers] == [404, 200, 200, 200, 200, 200, 404]
    assert [body for _, body in answers[1:5]] == [slow_storage.content_of(name) for name in names]
    assert json.loads(answers[5][1])["size"] == len(slow_storage.content_of("cold/1.bin"))
    code, out, err = server.end(by=signal.SIGTERM)
    assert (code, err) == (0, "")
    assert "served 7 requests, 7 lines" in out


def test_other_methods_and_other_protocols_do_no_harm(server: Server) -> None:
    for request in (b"POST /files/warm/0.bin HTTP/1.1\r\n\r\n", b'GET " \n\n \r\n\r\n', b"\r\n\r\n", b"x" * 100_000):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    assert server.get("/meta/warm/0.bin")[0][0] == 200
    code, out, err = server.end(by=signal.SIGTERM)
    assert (code, err) == (0, "")
    served, logged = re.findall(r"served (\d+) requests, (\d+) lines", out)[0]
    assert served == logged


def test_many_clients_may_want_the_same_cold_file_at_once(server: Server) -> None:
    bodies: list[bytes] = []
    clients = [threading.Thread(target=lambda: bodies.append(server.get("/files/cold/2.bin")[0][1])) for _ in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert bodies == [slow_storage.content_of("cold/2.bin")] * 6


def test_client_that_leaves_in_the_middle_does_no_harm(server: Server) -> None:
    for name in ["archive/2014/03/27/backup/0.bin", "cold/0.bin", "warm/0.bin"]:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(f"GET /files/{name} HTTP/1.1\r\n\r\n".encode())
        assert server.get(f"/files/{name}") == [(200, slow_storage.content_of(name))]
    code, _, err = server.end(by=signal.SIGTERM)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_every_end_takes_the_storage_and_its_files_with_it(by: signal.Signals, code: int) -> None:
    with Server("--fix", "buffered-log") as server:
        server.get("/files/cold/0.bin")
        assert server.children
        assert os.listdir(server.directory.name)
        assert server.end(by)[0] == code
        assert server.leftovers() == []


def test_signal_ends_a_demo_early_and_cleanly() -> None:
    with Server("--demo", "600") as server:
        server.get("/files/cold/0.bin")
        code, _, err = server.end(by=signal.SIGTERM)
        assert (code, err) == (0, "")
        assert server.leftovers() == []


class OneWrongByte(http.server.BaseHTTPRequestHandler):
    """Serves every file, but with its last byte flipped where the path of the request says so."""

    wrong = False

    def do_GET(self) -> None:
        body = slow_storage.content_of(self.path.removeprefix("/files/"))
        if self.wrong:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("wrong", [False, True])
def test_load_fails_on_one_wrong_byte(wrong: bool) -> None:
    handler = type("Handler", (OneWrongByte,), {"wrong": wrong})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, str(SAMPLES / "load.py"), str(server.server_port)]
        command += ["--metadata", "0", "--transfers", "1", "--requests", "2"]
        run = subprocess.run(command, capture_output=True, text=True)
        server.shutdown()
    assert run.returncode == int(wrong), run.stdout
    assert ("wrong body" in run.stdout) == wrong


def test_load_without_a_server_says_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        command = [sys.executable, str(SAMPLES / "load.py"), str(unused.getsockname()[1])]
        run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "refused" in run.stdout
    assert "Traceback" not in run.stderr


def test_dropbox_histogram_is_the_recorded_one() -> None:
    text = (SAMPLES / "dropbox_funclatency.txt").read_text()
    rows = re.findall(r"(\d+) -> (\d+) +: (\d+) +\|(.*)\|", text)
    counts = {(int(low), int(high)): int(count) for low, high, count, _ in rows}
    zero = dict.fromkeys([(2, 3), (4, 7), (8, 15)], 0)
    assert counts == {(0, 1): 3799, **zero, (16, 31): 409, (32, 63): 313, (64, 127): 128}
    assert [bar.count("*") for *_, bar in rows] == [40, 0, 0, 0, 4, 3, 1]
