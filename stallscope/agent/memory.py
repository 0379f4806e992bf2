"""The writing end of the shared memory (``layout`` describes it)."""

from __future__ import annotations

import atexit
import mmap
import os
import sys
from os import close, dup, fstat, ftruncate, getpid
from time import monotonic_ns

from . import layout

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Optional, Tuple


_MADV_WIPEONFORK = 18  # <linux/mman.h>, since Linux 4.14


class Memory:
    """One process's shared memory: 64-bit ``cells``, and texts beside them.

    ``cells`` is indexed in units of 8 bytes; the byte offsets of ``layout`` divide evenly.
    """

    def __init__(self, threshold_ns: int) -> None:
        self.fd = _open_private_file()
        ftruncate(self.fd, layout.SIZE)
        self._inode = fstat(self.fd).st_ino
        self._map, self._duplicate = _mapped(self.fd)
        self.bytes = memoryview(self._map)
        self.cells = self.bytes.cast("Q")
        cells = self.cells
        cells[layout.H_VERSION] = layout.VERSION
        cells[layout.H_SIZE] = layout.SIZE
        cells[layout.H_PID] = getpid()
        cells[layout.H_STARTED] = cells[layout.H_HEARTBEAT] = monotonic_ns()
        cells[layout.H_STATE] = layout.STATE_RUNNING
        cells[layout.H_THRESHOLD] = threshold_ns
        cells[layout.H_MAGIC] = layout.MAGIC

    @property
    def mapping(self) -> "mmap.mmap":
        """The whole memory, as a writable buffer."""
        return self._map

    def close_fd(self) -> None:
        """Drop the descriptor once the collector has its own; the mapping stays."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    def spare_descriptors(self) -> None:
        """Called before the memory is given up, which closes the mapping's own descriptor.

        A program that closed all its descriptors (a daemon) may have a file of its own there: then
        the mapping stays to the end.
        """
        if self._duplicate is None or _inode_of(self._duplicate) == self._inode:
            return
        atexit.register(id, self._map)  # all that this does is to hold it: our own modules may go

    def unmap(self) -> None:
        """Called in a forked child when nothing of ours uses it any more. To wait until nobody refers to it would not
        do: our parent's other threads are not here, but what their frames held is never given back."""
        if self._duplicate is None or _inode_of(self._duplicate) == self._inode:
            self.cells.release()
            self.bytes.release()
            self._map.close()

    def put_text(self, at: int, room: int, text: str) -> None:
        """Write NUL-terminated text at byte ``at``, cut to ``room`` bytes."""
        data = text.encode("utf-8", "replace")[: room - 1] + b"\0"
        self.bytes[at : at + len(data)] = data

    def put_record(self, text: str) -> bool:
        """Append a record to the ring; False when the collector is too far behind, or it is too long."""
        data = text.encode("utf-8", "replace")
        head = self.cells[layout.H_RING_HEAD]
        if head - self.cells[layout.H_RING_TAIL] >= layout.RECORDS or len(data) > layout.RECORD_TEXT_MAX:
            return False
        at = layout.RING_AT + head % layout.RECORDS * layout.RECORD_BYTES
        layout.RECORD_HEAD.pack_into(self.bytes, at, len(data), head & 0xFFFFFFFF)
        at += layout.RECORD_HEAD.size
        self.bytes[at : at + len(data)] = data
        self.cells[layout.H_RING_HEAD] = head + 1  # last: the record is whole when the reader sees it
        return True

    def put_progress(self, loop_at: int, text: str) -> None:
        """Publish the overdue iteration of the loop slot at byte ``loop_at``; empty text withdraws it."""
        data = text.encode("utf-8", "replace")
        if len(data) > layout.PROGRESS_BYTES:
            return
        cell = loop_at // layout.CELL
        self.cells[cell + layout.L_PROGRESS_SEQ] += 1
        at = loop_at + layout.PROGRESS_AT
        self.bytes[at : at + len(data)] = data
        self.cells[cell + layout.L_PROGRESS_LEN] = len(data)
        self.cells[cell + layout.L_PROGRESS_SEQ] += 1


def alive_page() -> "mmap.mmap":
    """A page whose first byte is 1 while the agent is aboard, and reads 0 in a forked child.

    The hooks ask ``alive[0]`` before they touch the shared memory: 15 ns, where ``os.getpid()``
    costs 180, and no fork hook is needed (``os.register_at_fork`` cannot be taken back).
    """
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.madvise(_MADV_WIPEONFORK)
    page[0] = 1
    return page


def _mapped(fd: int) -> Tuple[mmap.mmap, Optional[int]]:
    """The file's mapping, and the descriptor that it keeps for itself: the lowest free one."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, layout.SIZE, trackfd=False), None
    inode = fstat(fd).st_ino
    for _ in range(64):  # another thread may open a file in between, and take the number
        lowest = dup(fd)
        close(lowest)
        mapping = mmap.mmap(fd, layout.SIZE)
        if _inode_of(lowest) == inode:
            return mapping, lowest
        mapping.close()
    return mmap.mmap(fd, layout.SIZE), -1  # its number is not known: the mapping stays to the end


def _inode_of(fd: int) -> Optional[int]:
    try:
        return fstat(fd).st_ino
    except OSError:
        return None


def _open_private_file() -> int:
    create = getattr(os, "memfd_create", None)
    if create is not None:
        descriptor: int = create("stallscope", os.MFD_CLOEXEC)
        return descriptor
    # Without ``tempfile``, which would stay behind with all that it imports.
    path = os.path.join(os.environ.get("TMPDIR") or "/tmp", "stallscope-%d-%d" % (getpid(), monotonic_ns()))
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return handle


def send_memory(socket_path: str, memory: Memory, greeting: str) -> Optional[str]:
    """Hand the memory's descriptor to the collector; None, or why it could not be done.

    ``_socket`` and not ``socket``: always loaded in C, nothing to import, nothing patched.
    """
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(1.0)
        connection.connect(socket_path)
        rights = memory.fd.to_bytes(4, "little")
        connection.sendmsg([greeting.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    except OSError as error:
        return str(error)
    finally:
        connection.close()
    return None
