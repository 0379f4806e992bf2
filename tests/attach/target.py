"""The program that tests attach to: one kind of busy or blocked loop, and a thread that reports what is in the process.

Runs on CPython 3.8 and newer. Prints ``ready [PORT]``; answers each line on stdin with a line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import sys
import threading
import time
from asyncio.base_events import BaseEventLoop
from typing import Any

RUN = asyncio.Handle._run
TRACK = BaseEventLoop.__dict__["_set_coroutine_origin_tracking"]
KINDS = ("idle", "echo", "cpu", "read", "sleep", "lock", "select", "ticking", "threads", "uvloop")
longest = [0.0]  # between two looks at the clock of the kind that computes, in s, since it was last asked for


def report(loop: Any) -> dict[str, Any]:
    """Everything that must be as before when the agent has left."""
    gc.collect()
    held = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            held[number] = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
    with open("/proc/self/maps") as maps:
        shared = sum("memfd:stallscope" in line and "stallscope-pulse" not in line for line in maps)  # which stays
    return {
        "run": asyncio.Handle._run is RUN,
        "track": BaseEventLoop.__dict__["_set_coroutine_origin_tracking"] is TRACK,
        "selector": sorted(getattr(loop, "_selector", loop).__dict__),
        "loop": [name for name in loop.__dict__ if "stallscope" in name],
        "gc": len(gc.callbacks),
        "modules": sorted(sys.modules),
        "finders": len(sys.meta_path),
        "main": sorted(sys.modules["__main__"].__dict__),
        "fds": sorted(link for link in held.values() if not link.startswith("/proc/")),
        "threads": len(os.listdir("/proc/self/task")),
        "shared": shared,
    }


def answer(loop: Any) -> None:
    """The reporting thread."""
    for line in sys.stdin:
        if line == "longest\n":
            found, longest[0] = longest[0], 0.0
            print(json.dumps({"longest_s": found}), flush=True)
        else:
            print(json.dumps(report(loop)), flush=True)
    os._exit(0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while True:
        data = await reader.read(65536)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    writer.close()


async def ticking() -> None:
    """Short handlers, and one that blocks now and then."""
    while True:
        await asyncio.sleep(0.005)
        time.sleep(0.03)


def blocking(kind: str) -> None:
    """What the handler of the kinds that block calls; without end but for the CPU's, in slices of some 50 ms."""
    if kind == "cpu":
        now = time.perf_counter()
        until = now + 0.05
        while now < until:
            sum(range(1000))
            before, now = now, time.perf_counter()
            longest[0] = max(longest[0], now - before)
    elif kind == "read":
        os.read(os.pipe()[0], 1)
    elif kind == "sleep":
        time.sleep(1000)
    elif kind == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif kind == "select":
        select.select([os.pipe()[0]], [], [], 1000)


def computing() -> None:
    """A thread beside the loop that wants the interpreter now and then."""
    while True:
        sum(range(1000))
        time.sleep(0.002)


def again(loop: Any) -> None:
    """A handler that computes, again and again."""
    blocking("cpu")
    loop.call_soon(again, loop)


def main(kind: str) -> None:
    """Run one kind."""
    if kind == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    words = ["ready"]
    tasks: list[Any] = []
    if kind == "echo":
        server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
        words.append(str(server.sockets[0].getsockname()[1]))
    elif kind == "cpu":
        loop.call_soon(again, loop)
    elif kind in ("ticking", "uvloop"):
        tasks.append(loop.create_task(ticking()))
    elif kind == "threads":
        tasks.append(loop.create_task(ticking()))
        for _ in range(20):
            threading.Thread(target=computing, daemon=True).start()
    elif kind != "idle":
        loop.call_soon(blocking, kind)
    report(loop)
    threading.Thread(target=answer, args=(loop,), daemon=True).start()
    if kind in ("idle", "echo", "cpu", "ticking", "threads", "uvloop"):
        loop.call_soon(lambda: print(*words, flush=True))
    else:  # its handler never ends
        print(*words, flush=True)
    loop.run_forever()


if __name__ == "__main__":
    main(sys.argv[1])
