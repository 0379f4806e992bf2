"""What the stalls need: files, locks, sockets, objects of the right size, and the companion that makes us wait."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import logging
import os
import re
import select
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Callable, Dict, List

STALL_S = 0.05
STALL_NS = 50_000_000
ADDRESS = "127.0.0.1"
_MOST_BYTES = 256 << 20  # of a file that is made dirty
_PAGE = 4096
_INODES = 1000


class Stage:
    """Everything is made at once, before the loop runs; only what is asked for has its size found."""

    def __init__(self, directory: str, private: bool) -> None:
        self._directory = directory
        self.total, self.fd = 0, -1
        "".encode("idna")  # getaddrinfo imports it the first time, and that is no wait for a resolver
        self.lock = threading.Lock()
        for name in ("fifo", "full", "opened"):
            os.mkfifo(self.path(name))
        self.fifo, self.full = os.open(self.path("fifo"), os.O_RDWR), os.open(self.path("full"), os.O_RDWR)
        self._filler = os.open(self.path("full"), os.O_WRONLY | os.O_NONBLOCK)
        self.dirty, self.locked = self._made("dirty"), self._made("locked")
        self.poll = select.poll()
        self.poll.register(self.fifo, select.POLLIN)
        self.logger = _logger(self.full)
        self.database = _database(self.path("database"))
        self.hogging = False
        self._hog: Any = None
        self._may_hog = threading.Lock()
        self._sizes: Dict[str, Any] = {}
        command = [sys.executable, "-m", "tests.zoo.program.companion", directory, str(int(private))]
        self._companion = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.impossible: Dict[str, List[str]] = json.loads(self._answers.readline())
        self._hear_silence()
        self._listener = socket.create_server((ADDRESS, 0), backlog=0)
        self.black_hole = self._listener.getsockname()
        self._callers = [_unheard(self.black_hole) for _ in range(4)]

    def path(self, name: str) -> str:
        """Of a file of ours."""
        return os.path.join(self._directory, name)

    def _made(self, name: str) -> int:
        return os.open(self.path(name), os.O_RDWR | os.O_CREAT)

    def find_sizes(self, kinds: List[str]) -> None:
        """Makes objects so large that what they are for takes a stall's length."""
        if "fsync" in kinds:
            self._dirty_bytes = _slow_sync(self.dirty)
        if "json.dumps" in kinds:
            self.document = _document()
        if "regex" in kinds:
            self.hopeless = _hopeless()
        if "import" in kinds:
            _big_package(self.path("site-packages"))
        if "1000 stats" in kinds:
            self.inodes = _inodes(self.path("inodes"), self._directory)
        gc.disable()  # else it would run where no stall is wanted
        if "gc.collect" in kinds:
            self.heap = _slow_heap()

    async def prepare(self, kind: str, request: str) -> None:
        """Sees to it that the stall will last; without one of its own."""
        steps: Dict[str, Callable[[], Any]] = {
            "write to pipe": self._fill,
            "logging": self._fill,
            "connect": self._new_caller,
            "sqlite commit": self._change_database,
            "import": _forget_package,
            "GIL hog": self._new_hog,
            "flock": lambda: fcntl.flock(self.locked, fcntl.LOCK_UN),
            "fcntl lock": lambda: fcntl.lockf(self.locked, fcntl.LOCK_UN),
            "CPU hog": lambda: os.sched_setaffinity(0, {min(self._cpus)}),
        }
        self._cpus = os.sched_getaffinity(0)
        steps.get(kind, lambda: None)()
        if kind == "threading.Lock":
            await self._lend_lock()
        if request:
            await self._ask(f"dirty {self._dirty_bytes}" if request == "dirty" else request)

    async def clean_up(self, kind: str) -> None:
        """What a stall leaves behind."""
        if kind == "CPU hog":
            os.sched_setaffinity(0, self._cpus)
            await self._ask("enough")
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        while self._hog is not None and self._hog.is_alive():
            await asyncio.sleep(0.001)
        self._hog = None

    def close(self) -> None:
        """Lets the companion go."""
        self._companion.communicate()

    async def _ask(self, request: str) -> None:
        pipe: Any = self._companion.stdin
        pipe.write(request.encode() + b"\n")
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._answers, answered.set)
        await answered.wait()
        loop.remove_reader(self._answers)
        self._answers.read(1)

    @property
    def _answers(self) -> IO[bytes]:
        assert self._companion.stdout is not None
        return self._companion.stdout

    def _hear_silence(self) -> None:
        """A connection on which the companion will say something in its own time."""
        with socket.create_server((ADDRESS, 0)) as server:
            pipe: Any = self._companion.stdin
            pipe.write(b"call %d\n" % server.getsockname()[1])
            self.silent, _ = server.accept()
        self._answers.read(1)

    async def _lend_lock(self) -> None:
        loop, lent = asyncio.get_running_loop(), asyncio.Event()
        if self.lock.locked():
            self.lock.release()

        def hold() -> None:
            with self.lock:
                loop.call_soon_threadsafe(lent.set)
                time.sleep(STALL_S)

        threading.Thread(target=hold).start()
        await lent.wait()

    def _new_hog(self) -> None:
        self.hogging = True
        self._may_hog.acquire()

        def hog() -> None:
            with self._may_hog:
                while self.hogging:
                    self.total += 1

        self._hog = threading.Thread(target=hog)
        self._hog.start()

    def let_hog_run(self) -> None:
        """From the stall itself: before it, the other thread would stall the loop already."""
        self._may_hog.release()

    def _fill(self) -> None:
        try:
            while os.write(self._filler, bytes(_PAGE)):
                pass
        except BlockingIOError:
            pass

    def _new_caller(self) -> None:
        """A blocking socket whose connect gives up after a stall's length: socket(7), SO_SNDTIMEO."""
        self.caller = socket.socket()
        wait = struct.pack("ll", 0, int(STALL_S * 1e6))
        self.caller.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)

    def _change_database(self) -> None:
        self.database.execute("UPDATE rows SET number = number + 1")


def _logger(descriptor: int) -> logging.Logger:
    logger = logging.getLogger("zoo")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(os.fdopen(descriptor, "w", closefd=False)))
    return logger


def _database(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")  # what waits is to be the lock, not the disk
    database.execute("CREATE TABLE rows (number INTEGER)")
    database.execute("INSERT INTO rows VALUES (1)")
    database.commit()
    return database


def _unheard(address: Any) -> socket.socket:
    """A connection that nobody accepts; a few of them leave no room for another."""
    caller = socket.socket()
    caller.setblocking(False)
    caller.connect_ex(address)
    return caller


def _slow_sync(file: int) -> int:
    """How many bytes have to be dirty for an fsync of about a stall's length, as far as that can be had here."""
    size = 4 << 20
    while size < _MOST_BYTES:
        os.pwrite(file, os.urandom(size), 0)
        begun = time.monotonic_ns()
        os.fsync(file)
        if time.monotonic_ns() - begun >= STALL_NS:
            break
        size *= 2
    return size


def _cpu_ns(work: Callable[..., Any], *arguments: Any) -> int:
    begun = time.thread_time_ns()
    work(*arguments)
    return time.thread_time_ns() - begun


def _slow_heap() -> List[List[List[int]]]:
    """Objects enough for a collection of a stall's length."""
    heap: List[List[List[int]]] = []
    while _cpu_ns(gc.collect) < STALL_NS:
        heap.append([[number] for number in range(50_000)])
    return heap


def _document() -> List[Dict[str, Any]]:
    document: List[Dict[str, Any]] = [{"name": f"number {n}", "values": [n, n / 7, None]} for n in range(10_000)]
    while _cpu_ns(json.dumps, document) < STALL_NS:
        document *= 2
    return document


def _hopeless() -> str:
    """A text on which the expression of ``kinds.match`` fails after trying 2 to the power of its length."""
    text = "a" * 12 + "b"
    while _cpu_ns(re.match, r"(?:a+)+$", text) < STALL_NS:
        text = "a" + text
    return text


def _big_package(directory: str) -> None:
    """A package whose import takes a stall's length, of modules that define classes."""
    os.makedirs(os.path.join(directory, "big_package"))
    sys.path.append(directory)
    body = "\n".join(f"class C{n}:\n    def method(self):\n        return {n}\n" for n in range(40))
    root, count = os.path.join(directory, "big_package"), 0
    spent = 0
    while spent < STALL_NS:
        for number in range(count, count + 20):
            with open(os.path.join(root, f"part{number}.py"), "w") as file:
                file.write(body)
        count += 20
        with open(os.path.join(root, "__init__.py"), "w") as file:
            file.write("".join(f"from . import part{number}\n" for number in range(count)))
        _import_package()  # compiles it
        spent = _cpu_ns(_import_package)


def _import_package() -> None:
    _forget_package()
    __import__("importlib").invalidate_caches()
    __import__("big_package")


def _forget_package() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "big_package"]:
        del sys.modules[name]


def _inodes(directory: str, parent: str) -> List[str]:
    """Paths of many files; to find the directory the kernel has to walk through symlinks of a thousand steps each."""
    os.makedirs(os.path.join(parent, "real", "step"))
    paths = [os.path.join(directory, f"file{number}") for number in range(_INODES)]
    for path in paths:
        open(os.path.join(parent, "real", os.path.basename(path)), "w").close()
    goal, links = os.path.join(parent, "real"), 0
    while True:
        links += 1
        name = os.path.join(parent, f"link{links}")
        around = parent + "/real" + "/step/.." * ((_PAGE - 2 * len(goal) - len(parent) - 64) // len("/step/.."))
        os.symlink(f"{around}/../{os.path.basename(goal)}", name)
        goal = name
        if os.path.lexists(directory):
            os.unlink(directory)
        os.symlink(os.path.basename(goal), directory)
        if _cpu_ns(lambda: [os.stat(path) for path in paths]) >= STALL_NS:
            return paths
