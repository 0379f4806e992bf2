#!/usr/bin/env python3
"""A static-file server that stalls: one worker, one event loop, and three calls that block it.

The situation is the one Dropbox described for nginx: short metadata requests and long file
transfers share a worker, which also writes an access log. Each call below is an ordinary system
call that `slow_storage.py`, a process of its own, keeps waiting. While one handler waits in it,
every connection waits.

    open_file             os.open()   of archive/…                      24 ms
    read_block            os.read()   of cold/…                         32 ms
    AccessLog.write_page  os.write()  of a page of lines to access.log  40 ms

Each remedy (`--fix NAME`, any number of them, or `--fix all`) takes some of them away:

    read-offload       read_block in a thread pool: open_file still stalls the loop
    open-read-offload  open_file and read_block in a thread pool
    sendfile           open_file in a thread pool, then the kernel copies by sendfile(); a FIFO
                       cannot be a source of sendfile(), so cold/ is read in the thread pool
    buffered-log       log lines wait in memory for a thread, which makes the call of write_page
    syslog             log lines go to a datagram socket, which takes or drops each at once

Requests: GET /meta/NAME (a small JSON object) and GET /files/NAME, over HTTP/1.1 with keep-alive.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

from access_log import AccessLog, open_access_log
from slow_storage import BLOCK_BYTES, DELAY_MS, StorageProcess, leases_work

FIXES = ["read-offload", "open-read-offload", "sendfile", "buffered-log", "syslog"]
OPEN_FIXES = {"open-read-offload", "sendfile"}
READ_FIXES = {"open-read-offload", "sendfile", "read-offload"}
LOG_FIXES = {"buffered-log", "syslog"}

POOL_THREADS = 8


def open_file(path: str) -> int:
    """Blocks: the storage must recall an archived file before anybody may have it open."""
    return os.open(path, os.O_RDONLY)


def read_block(fd: int) -> bytes:
    """Blocks: the disk must first find the block of a cold file."""
    return os.read(fd, BLOCK_BYTES)


class StoredFile:
    """One entry of the storage's catalog."""

    def __init__(self, name: str, path: str, size: int, sha256: str) -> None:
        self.path, self.size = path, size
        self.meta = json.dumps({"name": name, "size": size, "sha256": sha256}).encode()
        self.is_fifo = name.startswith("cold/")


class FileServer:
    """Serves one catalog to any number of connections, each in a task that runs handle_client."""

    def __init__(self, catalog: Any, log: Any, fixes: set[str], pool: ThreadPoolExecutor) -> None:
        self.files = {name: StoredFile(name, **entry) for name, entry in catalog.items()}
        self.log, self.fixes, self.pool = log, fixes, pool
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.served = 0
        self.stopping = False
        self.tasks: set[Any] = set()
        self.idle: set[asyncio.StreamWriter] = set()

    async def handle_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request after the other until either side has had enough."""
        self.tasks.add(asyncio.current_task())
        try:
            while not self.stopping and await self.handle_request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the client left, or does not speak HTTP
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):  # an error that nobody asks for is one asyncio may print
                await writer.wait_closed()
            self.tasks.discard(asyncio.current_task())

    async def handle_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request, and its line in the log. Returns whether the connection stays open."""
        self.idle.add(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.idle.discard(writer)
        request, _, headers = head.partition("\r\n")
        status, size = await self.respond(request, writer)
        peer = writer.get_extra_info("peername")[0]
        now = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        self.served += 1
        self.log.write_line(f"{peer} - - [{now}] {json.dumps(request)} {status} {size}\n".encode())
        return status < 405 and "connection: close" not in headers.lower()

    async def respond(self, request: str, writer: asyncio.StreamWriter) -> tuple[int, int]:
        """Answer a request line. Returns the status and the bytes of the body."""
        method, target, _ = (request + "  ").split(" ", 2)
        route, _, name = target.lstrip("/").partition("/")
        file = self.files.get(name)
        if method != "GET":
            return await send(writer, 405, b"only GET is served\n")
        if file is None or route not in ("meta", "files"):
            return await send(writer, 404, b"no such file\n")
        if route == "meta":
            return await send(writer, 200, file.meta)
        if not file.is_fifo:
            return await self.send_file(writer, file)
        async with self.turns[name]:  # a FIFO has one reader at a time
            return await self.send_file(writer, file)

    async def send_file(self, writer: asyncio.StreamWriter, file: StoredFile) -> tuple[int, int]:
        fd = await self.open(file.path)
        try:
            writer.write(response_head(200, file.size))
            by_kernel = "sendfile" in self.fixes and not file.is_fifo
            sent = await (send_by_kernel(writer, fd) if by_kernel else self.send_blocks(writer, fd))
        finally:
            os.close(fd)
        if sent != file.size:
            raise ConnectionError("the storage is gone")
        return 200, sent

    async def send_blocks(self, writer: asyncio.StreamWriter, fd: int) -> int:
        """Reads ahead of the client, so a FIFO is read to its end even if the client leaves."""
        sent = 0
        block = await self.read(fd)
        while block:
            writer.write(block)
            sent += len(block)
            block = await self.read(fd)
            await writer.drain()
        return sent

    async def open(self, path: str) -> int:
        if self.fixes & OPEN_FIXES:
            return await asyncio.get_running_loop().run_in_executor(self.pool, open_file, path)
        return open_file(path)

    async def read(self, fd: int) -> bytes:
        if self.fixes & READ_FIXES:
            return await asyncio.get_running_loop().run_in_executor(self.pool, read_block, fd)
        return read_block(fd)

    async def stop(self) -> None:
        """Let every request in progress finish, within a second, and close every connection."""
        self.stopping = True
        for writer in self.idle:
            writer.close()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=1)


async def send(writer: asyncio.StreamWriter, status: int, body: bytes) -> tuple[int, int]:
    writer.write(response_head(status, len(body)) + body)
    await writer.drain()
    return status, len(body)


async def send_by_kernel(writer: asyncio.StreamWriter, fd: int) -> int:
    await writer.drain()  # raises if the client has left; sendfile() would raise something else
    with open(fd, "rb", closefd=False) as file:
        return await asyncio.get_running_loop().sendfile(writer.transport, file)


def response_head(status: int, size: int) -> bytes:
    reason = HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {reason}\r\nContent-Length: {size}\r\n\r\n".encode()


async def serve(server: FileServer, listener: socket.socket, load: subprocess.Popen[bytes] | None) -> int:
    """Serve until a signal comes or the load ends. Returns the exit code."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[int] = asyncio.Queue()
    loop.add_signal_handler(signal.SIGTERM, ended.put_nowait, 0)
    loop.add_signal_handler(signal.SIGINT, ended.put_nowait, 128 + signal.SIGINT)
    listening = await asyncio.start_server(server.handle_client, sock=listener)
    print("ready", listener.getsockname()[1], flush=True)
    if load:
        load_ended = loop.run_in_executor(None, load.wait)
        load_ended.add_done_callback(lambda exited: ended.put_nowait(exited.result()))
    code = await ended.get()
    if load:
        load.terminate()
    listening.close()
    await server.stop()
    return code


def start_load(port: int, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("load.py")), str(port)]
    return subprocess.Popen([*command, "--seconds", str(seconds)])


def run(fixes: set[str], port: int, demo_s: float | None) -> int:
    """The server's life, and that of its storage, log and load. Returns the exit code."""
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        sys.exit(f"cannot listen on port {port} ({error.strerror}): choose another with --port")
    storage = StorageProcess()
    log = open_access_log(storage.root, fixes)
    with ThreadPoolExecutor(POOL_THREADS) as pool:
        server = FileServer(storage.catalog, log, fixes, pool)
        load = start_load(listener.getsockname()[1], demo_s) if demo_s else None
        code = asyncio.run(serve(server, listener, load))
    log.close()
    lines = storage.close()
    print(f"served {server.served} requests, {lines} lines of access log committed")
    may_drop = "syslog" in fixes and "buffered-log" not in fixes
    return code or int(lines != server.served and not may_drop)


def truth(fixes: set[str]) -> list[dict[str, object]]:
    """What a profiler must say of this server: each call that blocks its loop under these fixes."""
    calls: list[tuple[str, Callable[..., Any], str, str, set[str]]] = [
        ("openat", open_file, "os.open(", "*/archive/*.bin", OPEN_FIXES),
        ("read", read_block, "os.read(", "*/cold/*.bin", READ_FIXES),
        ("write", AccessLog.write_page, "os.write(", "*/access.log", LOG_FIXES),
    ]
    return [
        {
            "handler": FileServer.handle_client.__qualname__,
            "function": function.__qualname__,
            "file": inspect.getsourcefile(function),
            "line": line_of(call, function),
            "syscall": syscall,
            "resource": resource,  # a pattern for fnmatch
            "delay_ms": DELAY_MS[syscall],
        }
        for syscall, function, call, resource, remedies in calls
        if not fixes & remedies and (syscall != "openat" or leases_work())
    ]


def line_of(call: str, function: Callable[..., Any]) -> int:
    lines, first = inspect.getsourcelines(function)
    return next(number for number, line in enumerate(lines, first) if call in line)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A static-file server that stalls.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument(
        "--fix",
        metavar="NAME",
        action="append",
        default=[],
        help=f"switch on a remedy: {', '.join(FIXES)}, or all; may be repeated",
    )
    parser.add_argument(
        "--demo",
        metavar="SECONDS",
        type=float,
        help="run load.py against the server for so long, then leave",
    )
    parser.add_argument(
        "--print-truth",
        action="store_true",
        help="print, as JSON, the calls that block the loop, and leave",
    )
    args = parser.parse_args()
    names = [name for value in args.fix for name in value.split(",")]
    unknown = set(names) - {*FIXES, "all"}
    if unknown:
        parser.error(f"no fix is called {', '.join(sorted(unknown))}; there are {', '.join(FIXES)} and all")
    args.fixes = set(FIXES if "all" in names else names)
    return args


def main() -> int:
    args = parse_arguments()
    if args.print_truth:
        print(json.dumps(truth(args.fixes), indent=2))
        return 0
    return run(args.fixes, args.port, args.demo)


if __name__ == "__main__":
    sys.exit(main())
