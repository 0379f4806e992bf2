"""The access log of `file_server.py`: one that blocks, and the two remedies of `--fix`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import socket
import threading
from pathlib import Path

LONGEST_BATCH = 256  # lines that BufferedLog hands over at once
F_SETPIPE_SZ = 1031  # Linux; in the fcntl module since Python 3.10


class AccessLog:
    """A durable log: gathers lines into a page, then has the log daemon commit the page."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY)
        self.pipe_bytes = shrink_pipe(self.fd)
        self.page = b""

    def write_line(self, line: bytes) -> None:
        self.page += line
        if len(self.page) > self.pipe_bytes:
            self.write_page()

    def write_page(self) -> None:
        """Blocks: the page is larger than the pipe, and the daemon commits before it reads on."""
        page, self.page = self.page + b"\n", b""
        while page:
            page = page[os.write(self.fd, page) :]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # the daemon is gone
            self.write_page()
        os.close(self.fd)


def shrink_pipe(fd: int) -> int:
    """Make the pipe as small as it gets, and return the bytes that it holds."""
    try:
        return fcntl.fcntl(fd, F_SETPIPE_SZ, 4096)
    except OSError:  # not Linux
        return 64 * 1024


class SyslogSocket:
    """`--fix syslog`: a datagram is taken at once, or dropped when the daemon is too far behind."""

    def __init__(self, path: Path, may_wait: bool) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.connect(str(path))
        self.socket.setblocking(may_wait)  # where it may, a full queue stalls as a full pipe does

    def write_line(self, line: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            self.socket.send(b"<134>" + line)  # facility local0, severity informational

    def close(self) -> None:
        self.socket.close()


class BufferedLog:
    """`--fix buffered-log`: lines wait in memory for a thread, which writes them to `log`."""

    def __init__(self, log: AccessLog | SyslogSocket) -> None:
        self.log = log
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.write_batches, name="log writer")
        self.thread.start()

    def write_line(self, line: bytes) -> None:
        self.lines.put(line)

    def write_batches(self) -> None:
        """Hand over what has come in: the more there is, the larger the page, so we keep up."""
        while True:
            batch = [self.lines.get()]
            while batch[-1] and not self.lines.empty() and len(batch) < LONGEST_BATCH:
                batch.append(self.lines.get())
            self.log.write_line(b"".join(batch))
            if not batch[-1]:
                return

    def close(self) -> None:
        self.lines.put(b"")  # no line is empty: it tells the thread to end
        self.thread.join()
        self.log.close()


def open_access_log(root: Path, fixes: set[str]) -> AccessLog | SyslogSocket | BufferedLog:
    """The log that the fixes ask for, connected to the daemon of the storage at `root`."""
    buffered = "buffered-log" in fixes
    log: AccessLog | SyslogSocket
    log = SyslogSocket(root / "syslog", may_wait=buffered) if "syslog" in fixes else AccessLog(root / "access.log")
    return BufferedLog(log) if buffered else log
