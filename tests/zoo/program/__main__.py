"""``python -m tests.zoo.program [--loop uvloop] stalls TRUTH DIRECTORY [--kinds K ...] [--each N] [--private]``

makes N stalls of every kind, in random order with healthy iterations between them, and writes what it did to TRUTH: a
line of JSON for each (``truth.Truth``), then what was impossible here, and why.

``python -m tests.zoo.program [--loop uvloop] clean ITERATIONS`` never stalls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time

from tests.zoo.program.kinds import KINDS
from tests.zoo.program.stage import Stage
from tests.zoo.program.truth import Truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

_TRIES = 3  # as many stalls as wanted, times this: where the machine is too busy, some are no stalls of their own
_SCHEDSTAT = os.open(f"/proc/self/task/{os.getpid()}/schedstat", os.O_RDONLY)


def _run_delay_ns() -> int:
    """How long the main thread has waited for a CPU: not the stall's own doing."""
    return int(os.pread(_SCHEDSTAT, 128, 0).split()[1])


async def handle(stage: Stage, kind: str) -> Dict[str, Any]:
    """One stall: times around what blocks, and around the whole handler."""
    entered = time.monotonic_ns()
    blocks = KINDS[kind].blocks
    delayed, ran, start = _run_delay_ns(), time.thread_time_ns(), time.monotonic_ns()
    measured = blocks(stage)
    end, ran, delayed = time.monotonic_ns(), time.thread_time_ns() - ran, _run_delay_ns() - delayed
    if measured is not None:
        start, end = measured
    truth = {"start_ns": start, "end_ns": end, "cpu_ns": ran, "run_delay_ns": delayed, "entered_ns": entered}
    truth["left_ns"] = time.monotonic_ns()
    return truth


async def _stall(stage: Stage, kind: str) -> Truth:
    known = KINDS[kind]
    await stage.prepare(kind, known.request)
    armed = time.monotonic_ns()
    times = await asyncio.get_running_loop().create_task(handle(stage, kind))
    resumed = time.monotonic_ns()
    await stage.clean_up(kind)
    about: Dict[str, Any] = {"kind": kind, "cause": known.cause, "calls": known.calls, "resource": known.resource}
    about.update(file=known.blocks.__code__.co_filename, lines=known.lines, nature=known.nature, exact=known.exact)
    return Truth(dict(about, armed_ns=armed, resumed_ns=resumed, **times))


async def _stalls(stage: Stage, kinds: List[str], out: Any, options: Any) -> None:
    chance = random.Random(options.seed)
    left = dict.fromkeys(kinds, options.each)
    tries = dict.fromkeys(kinds, options.each * _TRIES)
    while left:
        kind = chance.choice(sorted(left))
        for _ in range(chance.randrange(5, 50)):
            await asyncio.sleep(0)
        await asyncio.sleep(0.02 * chance.random())
        truth = await _stall(stage, kind)
        out.write(json.dumps(truth.values()) + "\n")
        left[kind] -= truth.is_sure
        tries[kind] -= 1
        if not left[kind] or not tries[kind]:
            del left[kind]


async def _clean(iterations: int) -> None:
    """Nothing but short iterations: callbacks that call each other, and a task that yields."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    left = iterations

    def ping() -> None:
        loop.call_soon(pong)

    def pong() -> None:
        nonlocal left
        left -= 2
        if left > 0:
            loop.call_soon(ping)
        else:
            over.set()

    loop.call_soon(ping)
    while not over.is_set():
        for _ in range(100):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)


def _run(main: Any, kind: str) -> None:
    if kind == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.program")
    parser.add_argument("--loop", default="asyncio")
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("clean").add_argument("iterations", type=int)
    stalls = modes.add_parser("stalls")
    stalls.add_argument("truth")
    stalls.add_argument("directory")
    stalls.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    stalls.add_argument("--each", type=int, default=20)
    stalls.add_argument("--seed", type=int, default=7)
    stalls.add_argument("--private", action="store_true", help="mounts and network are this process's own")
    return parser.parse_args()


def main() -> None:
    """Does what the first argument says."""
    options = _options()
    if options.mode == "clean":
        _run(_clean(options.iterations), options.loop)
        return
    stage = Stage(options.directory, options.private)
    impossible = {kind for kinds in stage.impossible.values() for kind in kinds}
    kinds = [kind for kind in options.kinds if kind not in impossible and options.each]
    stage.find_sizes(kinds)
    with open(options.truth, "w") as out:
        _run(_stalls(stage, kinds, out, options), options.loop)
        out.write(json.dumps({"impossible": stage.impossible}) + "\n")
    stage.close()


if __name__ == "__main__":
    main()
