"""A file system whose disk is slow: FUSE, spoken to the kernel directly, so that no library has to be there.

It has two files in its root: to look ``stat`` up takes its time, and so does opening ``opened``; nothing is cached.
Numbers and structures: include/uapi/linux/fuse.h, protocol 7.31.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

_LOOKUP, _FORGET, _GETATTR, _OPEN, _RELEASE, _FLUSH, _INIT, _INTERRUPT, _BATCH_FORGET = 1, 2, 3, 14, 18, 25, 26, 36, 42
_IN, _OUT = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
_ENTRY, _ATTRIBUTES = struct.Struct("=QQQQII"), struct.Struct("=QQQQQQIIIIIIIIII")
_ROOT = 1
_NODES = {b"stat": 2, b"opened": 3}
_REQUEST_BYTES = 1 << 18


def serve(directory: str, libc: Any, delay_s: float) -> Optional[str]:
    """Mounts the file system and serves it in a thread; returns why not, or None."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    os.mkdir(directory)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"zoo", directory.encode(), b"fuse", 0, options.encode()):
        return "a FUSE file system cannot be mounted here"
    threading.Thread(target=_answer_all, args=(device, delay_s), daemon=True).start()
    return None


def _answer_all(device: int, delay_s: float) -> None:
    while True:
        try:
            request = os.read(device, _REQUEST_BYTES)
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return
            continue
        _, operation, unique, node, *_ = _IN.unpack_from(request)
        if operation not in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            outcome = _answer(operation, node, request[_IN.size :], delay_s)
            code, body = (-outcome, b"") if isinstance(outcome, int) else (0, outcome)
            os.write(device, _OUT.pack(_OUT.size + len(body), code, unique) + body)


def _answer(operation: int, node: int, body: bytes, delay_s: float) -> Any:
    """What follows the head of the answer; or an error's number."""
    if operation == _INIT:
        return struct.pack("=IIIIHHIIHHI28x", 7, 31, 1 << 16, 0, 16, 12, 1 << 16, 1, 16, 0, 0)
    if operation == _LOOKUP:
        found = _NODES.get(body.rstrip(b"\0"))
        time.sleep(delay_s if found == _NODES[b"stat"] else 0)
        return errno.ENOENT if found is None else _ENTRY.pack(found, 0, 0, 0, 0, 0) + _attributes(found)
    if operation == _GETATTR:
        return struct.pack("=QII", 0, 0, 0) + _attributes(node)
    if operation == _OPEN:
        time.sleep(delay_s)
        return struct.pack("=QII", 0, 0, 0)
    return b"" if operation in (_RELEASE, _FLUSH) else errno.ENOSYS


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o644
    return _ATTRIBUTES.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)
