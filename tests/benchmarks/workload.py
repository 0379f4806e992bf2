"""The measured programs, bare or observed; standard library only. Prints one JSON line."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import sys
import time
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


def _client(port: int, messages: int, ready: Any) -> None:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ready.wait()
    data = b"x" * 64
    for _ in range(messages):
        connection.sendall(data)
        while len(connection.recv(64)) == 0:
            raise SystemExit("the server went away")
    connection.close()


def echo(connections: int, messages: int) -> dict[str, float]:
    """Requests a second of an echo server at saturation, and CPU ns of its process for each request."""
    spawn = multiprocessing.get_context("fork")

    async def serve() -> dict[str, float]:
        left = connections
        done = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal left
            while True:
                data = await reader.read(64)
                if not data:
                    break
                writer.write(data)
            writer.close()
            left -= 1
            if not left:
                done.set()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        barrier = spawn.Barrier(connections)
        clients = [spawn.Process(target=_client, args=(port, messages, barrier)) for _ in range(connections)]
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

    return asyncio.run(serve())


WORKLOADS = {
    "one handler an iteration": lambda scale: ping_pong(1, int(100_000 * scale)),
    "100 handlers an iteration": lambda scale: ping_pong(100, int(3_000 * scale)),
    "echo server": lambda scale: echo(4, int(4_000 * scale)),
}

SHORT = {  # some 30 ms each
    "one handler an iteration": lambda: ping_pong(1, 10_000),
    "100 handlers an iteration": lambda: ping_pong(100, 300),
    "100 tasks, each step": lambda: steps(100, 200),
}

if __name__ == "__main__":
    print(json.dumps(WORKLOADS[sys.argv[1]](float(sys.argv[2]))))
