"""The measured programs, bare or observed; standard library only. Prints one JSON line.

``workload.py NAME SCALE LOOP`` measures itself; ``workload.py serve LOOP`` is the echo server alone.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any


def ping_pong(handlers: int, iterations: int) -> dict[str, float]:
    """CPU ns of the loop's thread for each iteration that runs ``handlers`` callbacks."""
    left = [iterations]

    def callback() -> None:
        pass

    def turn() -> None:
        left[0] -= 1
        if left[0] == 0:
            loop.stop()
            return
        for _ in range(handlers - 1):
            loop.call_soon(callback)
        loop.call_soon(turn)

    loop = asyncio.new_event_loop()
    loop.call_soon(turn)
    begun = time.thread_time_ns()
    loop.run_forever()
    spent = time.thread_time_ns() - begun
    loop.close()
    return {"ns": spent / iterations}


def steps(tasks: int, each: int) -> dict[str, float]:
    """CPU ns of the loop's thread for each step of a task, with so many tasks that take turns."""

    async def turns() -> None:
        for _ in range(each):
            await asyncio.sleep(0)

    async def all_of_them() -> float:
        begun = time.thread_time_ns()
        await asyncio.gather(*[turns() for _ in range(tasks)])
        return time.thread_time_ns() - begun

    return {"ns": asyncio.run(all_of_them()) / (tasks * each)}


class _Hopping(asyncio.BufferedProtocol):
    """Says back what it is told, until there were enough messages.

    Into a buffer of its own: asyncio's, of 256 KiB for each message, is mapped and unmapped each time, which can take
    three quarters of a message's time.
    """

    def __init__(self, left: list[int], over: asyncio.Future[None]) -> None:
        self._left, self._over, self._buffer = left, over, bytearray(64)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._left[0] -= 1
        if self._left[0]:
            self._transport.write(bytes(self._buffer[:nbytes]))
        else:
            self._over.set_result(None)


def hops(count: int) -> dict[str, float]:
    """CPU ns of the loop's thread for each message between two sockets of one loop: a wait, a read and a write."""

    async def all_of_them() -> float:
        loop = asyncio.get_running_loop()
        ends, left, over = socket.socketpair(), [count], loop.create_future()
        (first, _), (second, _) = [await loop.create_connection(lambda: _Hopping(left, over), sock=end) for end in ends]
        begun = time.thread_time_ns()
        first.write(b"x" * 64)
        await over
        spent = time.thread_time_ns() - begun
        first.close()
        second.close()
        return spent

    return {"ns": asyncio.run(all_of_them()) / count}


def ask(port: int, times: Iterable[int], ready: Any) -> int:
    """One client: says something and waits for the echo, that many times; returns how many."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ready.wait()
    data, asked = b"x" * 64, 0
    for _ in times:
        connection.sendall(data)
        if not connection.recv(64):
            raise SystemExit("the server went away")
        asked += 1
    connection.close()
    return asked


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says everything back until the client goes."""
    while True:
        data = await reader.read(64)
        if not data:
            break
        writer.write(data)
    writer.close()


async def serve() -> None:
    """An echo server for others to ask: prints its port and process in a line of JSON, serves until it is killed."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "pid": os.getpid()}), flush=True)
    await asyncio.Event().wait()


def echo(connections: int, messages: int) -> dict[str, float]:
    """Requests a second of an echo server at saturation, and CPU ns of its process for each request."""
    spawn = multiprocessing.get_context("fork")

    async def asked() -> dict[str, float]:
        left = connections
        done = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal left
            await answer(reader, writer)
            left -= 1
            if not left:
                done.set()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        barrier = spawn.Barrier(connections)
        clients = [spawn.Process(target=ask, args=(port, range(messages), barrier)) for _ in range(connections)]
        for client in clients:
            client.start()
        begun, cpu = time.perf_counter(), time.process_time()
        await done.wait()
        spent, cpu = time.perf_counter() - begun, time.process_time() - cpu
        for client in clients:
            client.join()
        server.close()
        requests = connections * messages
        return {"per_s": requests / spent, "ns": cpu / requests * 1e9}

    return asyncio.run(asked())


def use(loop: str) -> None:
    """From now on new loops are of that kind: ``asyncio`` or ``uvloop``."""
    if loop == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


WORKLOADS = {
    "one handler an iteration": lambda scale: ping_pong(1, int(100_000 * scale)),
    "100 handlers an iteration": lambda scale: ping_pong(100, int(3_000 * scale)),
    "echo server": lambda scale: echo(4, int(4_000 * scale)),
}

SHORT = {  # some 3 ms each
    "one handler an iteration": lambda: ping_pong(1, 1_000),
    "100 handlers an iteration": lambda: ping_pong(100, 30),
    "100 tasks, each step": lambda: steps(100, 20),
    "a message between two sockets": lambda: hops(200),
    "a request of an echo server": lambda: echo(2, 400),  # of all its threads, 15 ms
}

if __name__ == "__main__":
    _, _name, *_scale, _loop = sys.argv
    use(_loop)
    if _name == "serve":
        asyncio.run(serve())
    else:
        print(json.dumps(WORKLOADS[_name](float(_scale[0]))))
