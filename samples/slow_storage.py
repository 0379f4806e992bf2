"""The slow storage behind `file_server.py`: a process of its own that makes real system calls wait.

It owns a temporary directory, and keeps these calls of the server waiting there, each for a fixed
delay that begins when the server makes the call:

* `open()` of a regular file under `archive/`. Every file is held under a write lease (`F_SETLEASE`
  in fcntl(2)): the kernel keeps an opener waiting until the holder gives the lease back, as it
  does for an NFS delegation or an SMB oplock. Linux only; without leases `archive/` opens at once.
* `read()` of a FIFO under `cold/`: the disk must find the block before it can feed the FIFO.
* `write()` to the FIFO `access.log` of more than the pipe holds: the log daemon commits the page
  before it takes the rest.

`warm/` holds regular files that are never slow. The process leaves, and takes its directory with
it, when its standard input ends, which happens however the server dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DELAY_MS = {"openat": 24, "read": 32, "write": 40}

BLOCK_BYTES = 64 * 1024  # what one read() asks for, and what a FIFO holds
RELEASE_PERIOD_S = 0.003  # how often to ask for the lease of a file that is still in use

# Folder -> (files, blocks of each). A cold file is one block: the FIFO must hold it whole.
STORED = {"warm": (2, 4), "archive/2014/03/27/backup": (4, 4), "cold": (3, 1)}


def stored_names() -> list[str]:
    """The name of every stored file, as requests spell it."""
    return [f"{folder}/{n}.bin" for folder, (count, _) in STORED.items() for n in range(count)]


def content_of(name: str) -> bytes:
    """The bytes of a stored file: a pure function of its name, so that a client can check them."""
    size = STORED[os.path.dirname(name)][1] * BLOCK_BYTES
    return random.Random(name).getrandbits(8 * size).to_bytes(size, "little")


def leases_work() -> bool:
    """Whether files in the directory of temporary files can be put under a lease."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    with tempfile.NamedTemporaryFile() as probe:
        try:
            fcntl.fcntl(probe, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            return False
    return True


class Archive:
    """Holds regular files under a lease, and gives a lease back late when somebody opens one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.in_use = {os.open(path, os.O_RDONLY) for path in paths}
        self.leased: set[int] = set()
        self.recalled: dict[int, float] = {}  # fd -> when to let its opener through

    def serve(self) -> None:
        """Run for ever. SIGIO, which must be blocked in every thread, tells of a waiting opener."""
        while True:
            self.take_leases()
            self.note_openers()
            self.let_openers_through()
            signal.sigtimedwait([signal.SIGIO], self.seconds_to_wait())

    def take_leases(self) -> None:
        for fd in list(self.in_use):
            with contextlib.suppress(BlockingIOError):  # somebody still has it open
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                self.in_use.remove(fd)
                self.leased.add(fd)

    def note_openers(self) -> None:
        for fd in list(self.leased):
            if fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK:
                self.leased.remove(fd)
                self.recalled[fd] = time.monotonic() + DELAY_MS["openat"] / 1000

    def let_openers_through(self) -> None:
        for fd, due in list(self.recalled.items()):
            if due <= time.monotonic():
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                del self.recalled[fd]
                self.in_use.add(fd)

    def seconds_to_wait(self) -> float:
        next_due = min(self.recalled.values(), default=time.monotonic() + 1)
        longest = RELEASE_PERIOD_S if self.in_use else 1.0
        return min(longest, max(0.0, next_due - time.monotonic()))


def feed_cold_file(path: Path, content: bytes) -> None:
    """Feed whoever opens the FIFO at `path`, late, then end the file. Ends with the directory.

    The next reader may come as soon as this one has seen end of file. It must not meet the same
    FIFO, which this one may still hold open, so it finds a fresh one. The old one keeps its path
    for a moment: a profiler may look it up when the read() returns.
    """
    with contextlib.suppress(FileNotFoundError):
        while True:
            with open(os.open(path, os.O_WRONLY), "wb", buffering=0) as reader:
                time.sleep(DELAY_MS["read"] / 1000)
                with contextlib.suppress(BrokenPipeError):
                    reader.write(content)
                time.sleep(0.002)
                make_fifo(path)


def make_fifo(path: Path) -> None:
    """Put a fresh FIFO at `path`, in one step where there is one already."""
    fresh = path.with_suffix(".fresh")
    os.mkfifo(fresh, 0o600)
    os.replace(fresh, path)


class LogDaemon:
    """Takes access log lines, in pages from a FIFO or one by one from a syslog socket."""

    def __init__(self, root: Path) -> None:
        make_fifo(root / "access.log")
        self.fifo = os.open(root / "access.log", os.O_RDONLY | os.O_NONBLOCK)  # waits for nobody
        os.set_blocking(self.fifo, True)
        self.syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.syslog.bind(str(root / "syslog"))
        self.lines = 0

    def serve_until_end_of(self, stdin: int) -> None:
        sources: list[Any] = [stdin, self.fifo, self.syslog]
        readable: list[Any] = []
        while stdin not in readable:
            readable, _, _ = select.select(sources, [], [])
            if self.syslog in readable:
                self.take_datagram()
            if self.fifo in readable:
                time.sleep(DELAY_MS["write"] / 1000)
                self.take_page()
        self.take_what_is_left()

    def take_page(self) -> None:
        """Read up to the empty line that ends a page, or to end of file."""
        page = chunk = os.read(self.fifo, BLOCK_BYTES)
        while chunk and not page.endswith(b"\n\n"):
            chunk = os.read(self.fifo, BLOCK_BYTES)
            page += chunk
        self.lines += sum(map(bool, page.split(b"\n")))

    def take_datagram(self) -> None:
        self.lines += self.syslog.recv(4 * BLOCK_BYTES).count(b"\n")

    def take_what_is_left(self) -> None:
        """The server is gone: what it wrote last is all there, so nothing here can wait."""
        self.take_page()
        self.syslog.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.take_datagram()


def store_files(root: Path) -> dict[str, dict[str, object]]:
    """Create every file, and return the catalog: name -> path, size in bytes, sha256."""
    catalog: dict[str, dict[str, object]] = {}
    for name in stored_names():
        path, content = root / name, content_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("cold/"):
            make_fifo(path)
            in_background(feed_cold_file, path, content)
        else:
            path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        catalog[name] = {"path": str(path), "size": len(content), "sha256": digest}
    return catalog


def in_background(work: Callable[..., None], *args: object) -> None:
    threading.Thread(target=work, args=args, daemon=True).start()


def say(message: object) -> None:
    """One line of JSON to the server, if it is still there to read it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


class StorageProcess:
    """The server's handle on the storage: started when made, gone when closed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server; the storage leaves after it
        )
        assert self.process.stdout
        hello = self.process.stdout.readline()
        if not hello:
            sys.exit("the slow storage did not start: its own message stands above")
        self.root, self.catalog = Path(json.loads(hello)["root"]), json.loads(hello)["files"]

    def close(self) -> int:
        """End the storage. Returns the number of log lines that it has committed."""
        goodbye, _ = self.process.communicate()
        shutil.rmtree(self.root, ignore_errors=True)  # in case somebody killed it
        return int(json.loads(goodbye or "{}").get("lines", 0))


def main() -> None:
    """Say the catalog, serve until standard input ends, say how many log lines were committed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])  # Archive waits for it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # leaves after the server, not before it
    root = Path(tempfile.mkdtemp(prefix="slow_storage."))
    try:
        files = store_files(root)
        if leases_work():
            in_background(Archive((root / "archive").rglob("*.bin")).serve)
        else:
            print(f"no leases in {root.parent}: archive/ opens at once", file=sys.stderr)
        log_daemon = LogDaemon(root)
        say({"root": str(root), "files": files})
        log_daemon.serve_until_end_of(sys.stdin.fileno())
        say({"lines": log_daemon.lines})
    finally:
        for _ in range(5):  # a cold file may be made afresh while we remove the others
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
