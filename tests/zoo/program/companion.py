"""The companion: another process that makes the program wait.

``python -m tests.zoo.program.companion DIRECTORY PRIVATE`` reads requests, a line each, on stdin; a byte on stdout says
that it is ready, and then, after a stall's length, it does what the program waits for. Before the first request it
writes a line of JSON: why what cannot be done here. ``PRIVATE`` is 1 where mounts and network are the program's own.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import sqlite3
import struct
import sys
import threading
import time

from tests.zoo.program import storage
from tests.zoo.program.stage import ADDRESS, STALL_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional

_MS_BIND = 4096  # <sys/mount.h>
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # <linux/sockios.h>, <net/if.h>
_HOGS = 7
_HOGS_MOST_S = 2.0
_MIB = 1 << 20


class Companion:
    """What it holds open, and what it does on request."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._hogs = [_hog() for _ in range(_HOGS)]  # before any thread is started
        self._fifo, self._dirty, self._locked = (self._open(name) for name in ("fifo", "dirty", "locked"))
        self._full = os.open(os.path.join(directory, "full"), os.O_RDWR | os.O_NONBLOCK)
        self._database = sqlite3.connect(os.path.join(directory, "database"), isolation_level=None)
        self._caller: Optional[socket.socket] = None
        self._timer: Optional[threading.Timer] = None
        self._data = os.urandom(16 * _MIB)

    def _open(self, name: str) -> int:
        return os.open(os.path.join(self._directory, name), os.O_RDWR)

    def serve(self) -> None:
        """Until stdin is closed."""
        for line in sys.stdin:
            request, *rest = line.split()
            before: Optional[Callable[..., Any]] = getattr(self, "before_" + request, None)
            after: Optional[Callable[[], Any]] = getattr(self, "after_" + request, None)
            if before is not None:
                before(*map(int, rest))
            os.write(1, b".")
            if after is not None:
                time.sleep(STALL_S)
                after()

    def after_open(self) -> None:
        os.close(os.open(os.path.join(self._directory, "opened"), os.O_WRONLY))

    def after_fifo(self) -> None:
        os.write(self._fifo, b"x")

    def after_drain(self) -> None:
        try:
            while os.read(self._full, _MIB):
                pass
        except BlockingIOError:
            pass

    def before_call(self, port: int) -> None:
        self._caller = socket.create_connection((ADDRESS, port))

    def after_send(self) -> None:
        assert self._caller is not None
        self._caller.send(b"x")

    def before_dirty(self, size: int) -> None:
        for at in range(0, size, len(self._data)):
            os.pwrite(self._dirty, self._data[: size - at], at)

    def before_flock(self) -> None:
        fcntl.flock(self._locked, fcntl.LOCK_EX)

    def after_flock(self) -> None:
        fcntl.flock(self._locked, fcntl.LOCK_UN)

    def before_lockf(self) -> None:
        fcntl.lockf(self._locked, fcntl.LOCK_EX)

    def after_lockf(self) -> None:
        fcntl.lockf(self._locked, fcntl.LOCK_UN)

    def before_select(self) -> None:
        self._database.execute("BEGIN")
        self._database.execute("SELECT * FROM rows LIMIT 1").fetchall()

    def after_select(self) -> None:
        self._database.execute("COMMIT")

    def before_stop(self) -> None:
        threading.Thread(target=_stop, args=(os.getppid(),)).start()

    def before_hogs(self) -> None:
        """They compute until the program has had enough, and not for long if it never says so."""
        for hog in self._hogs:
            os.kill(hog, signal.SIGCONT)
        self._timer = threading.Timer(_HOGS_MOST_S, self.before_enough)
        self._timer.start()

    def before_enough(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for hog in self._hogs:
            os.kill(hog, signal.SIGSTOP)

    def close(self) -> None:
        for hog in self._hogs:
            os.kill(hog, signal.SIGKILL)
            os.waitpid(hog, 0)


def _stop(pid: int) -> None:
    """Stops the process for a stall's length, shortly after it was told."""
    time.sleep(STALL_S / 10)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(STALL_S)
    os.kill(pid, signal.SIGCONT)


def _hog() -> int:
    """A stopped process that will do nothing but compute, on the first CPU that there is."""
    hog = os.fork()
    if hog:
        os.kill(hog, signal.SIGSTOP)
        return hog
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        pass


def _resolve_slowly(libc: Any, directory: str) -> Optional[str]:
    """A resolver of our own, on the private network's loopback; returns why not, or None."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ADDRESS, 53))
    settings = os.path.join(directory, "resolv.conf")
    with open(settings, "w") as file:
        file.write(f"nameserver {ADDRESS}\noptions timeout:5 attempts:1\n")
    if libc.mount(settings.encode(), b"/etc/resolv.conf", None, _MS_BIND, None):
        return "/etc/resolv.conf cannot be mounted over"
    threading.Thread(target=_answer_names, args=(server,), daemon=True).start()
    return None


def _answer_names(server: socket.socket) -> None:
    """Every name is this machine's (RFC 1035, section 4)."""
    while True:
        query, peer = server.recvfrom(512)
        time.sleep(STALL_S)
        question = query[12 : query.index(b"\0", 12) + 5]
        head = query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
        answer = struct.pack("!3HIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(ADDRESS)
        server.sendto(head + question + answer, peer)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        name, flags = struct.unpack("16sH22x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | _IFF_UP))


def _prepare(directory: str, private: bool) -> Dict[str, List[str]]:
    """Sets up what takes a private network and private mounts; reasons, and the kinds that they keep from running."""
    slow_disk, names = ["open, slow disk", "stat, slow disk"], ["getaddrinfo"]
    if not private:
        return {"mounts and a network of one's own need unshare(1) and the right to it": slow_disk + names}
    libc = ctypes.CDLL(None)
    _raise_loopback()
    reasons = {storage.serve(os.path.join(directory, "slow"), libc, STALL_S): slow_disk}
    reasons.setdefault(_resolve_slowly(libc, directory), []).extend(names)
    return {reason: kinds for reason, kinds in reasons.items() if reason is not None}


def main() -> None:
    """Until stdin is closed."""
    directory, private = sys.argv[1:]
    companion = Companion(directory)
    os.write(1, json.dumps(_prepare(directory, private == "1")).encode() + b"\n")
    companion.serve()
    companion.close()


if __name__ == "__main__":
    main()
