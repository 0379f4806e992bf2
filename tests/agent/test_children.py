"""Processes that come of the observed one: each is observed as itself, and the parent's counts stay its own."""

from __future__ import annotations

import pytest

from tests.agent.observing import Observed, Observing

FORK_IN_A_STALL = """
import asyncio, gc, os, sys, warnings
from truth import *

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and newer warn of a fork beside our thread
way, child = sys.argv[1], 0
async def some(count):
    for _ in range(count): await asyncio.sleep(0)

def fork_and_stall():
    global child
    stall_until_seen()
    loop.selects_before = loop.selector.selects
    child = os.fork()
    if not child and way == "leaves": os._exit(0)
    if not child and way == "makes a loop":
        asyncio.events._set_running_loop(None)
        other = named_loop("Other")
        other.run_until_complete(some(25))
        tell(pid=os.getpid(), selects=other.selector.selects)
        os._exit(0)

async def main():
    await some(10)
    loop.call_soon(fork_and_stall)
    await some(50)

loop = named_loop("Forking")
try:
    loop.run_until_complete(main())
finally:
    mine = loop.selector.selects - (0 if child else loop.selects_before)
    tell(pid=os.getpid(), selects=mine)
if child: os.waitpid(child, 0)
"""


@pytest.mark.parametrize("way", ["leaves", "makes a loop", "goes on"])
def test_a_fork_in_the_middle_of_a_stall(observing: Observing, way: str) -> None:
    if way == "goes on" and observing.interpreter.version >= (3, 14):
        pytest.skip("since 3.14 a forked child has no running loop to go on with")
    ran = observing.run(FORK_IN_A_STALL, way)
    assert (ran.code, ran.stderr) == (0, "")
    assert _iterations(ran) == _selects(ran)
    (parent, *children) = ran.recording.processes
    assert len(children) == (way != "leaves")
    assert all(child.parent_pid == parent.pid for child in children)
    stalled = [stall.loop_id for stall in ran.recording.stalls if stall.current is not None]
    assert [loop.pid for loop in ran.recording.loops if loop.id in stalled] == [parent.pid]


def test_children_are_left_alone_when_they_are_not_followed(observing: Observing) -> None:
    goes_on = observing.interpreter.version < (3, 14)  # since then a forked child has no running loop to go on with
    ran = observing.run(FORK_IN_A_STALL, "goes on" if goes_on else "makes a loop", follow=False)
    assert (ran.code, ran.stderr) == (0, "")
    (process,) = ran.recording.processes
    assert _iterations(ran) == {process.pid: _selects(ran)[process.pid]}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_are_observed(observing: Observing, method: str) -> None:
    ran = observing.run(
        """
        import multiprocessing, os, sys
        from truth import *

        def work(count):
            async def some():
                for _ in range(count): await asyncio.sleep(0)
            loop = named_loop("Worker%d" % count)
            loop.run_until_complete(some())
            tell(pid=os.getpid(), selects=loop.selector.selects)
            loop.close()  # or whether it is collected before its sockets is a matter of luck

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            workers = [context.Process(target=work, args=(count,)) for count in (20, 30)]
            for worker in workers: worker.start()
            work(10)
            for worker in workers: worker.join()
            sys.exit(max(worker.exitcode for worker in workers))
        """,
        method,
    )
    assert (ran.code, ran.stderr) == (0, "")
    assert len(_selects(ran)) == 3
    assert _iterations(ran) == _selects(ran)


def test_a_program_that_replaces_itself_is_observed_before_and_after(observing: Observing) -> None:
    ran = observing.run(
        """
        import os, sys
        from truth import *

        async def some():
            for _ in range(10): await asyncio.sleep(0)
            if len(sys.argv) == 1:
                tell(pid=os.getpid(), selects=loop.selector.selects)
                os.execv(sys.executable, [sys.executable, sys.argv[0], "again"])
        loop = named_loop("Before" if len(sys.argv) == 1 else "After")
        loop.run_until_complete(some())
        tell(pid=os.getpid(), selects=loop.selector.selects)
        """
    )
    before, after = ran.recording.processes
    assert before.pid == after.pid == ran.told["pid"]
    assert (before.ending, after.ending) == ("replaced", "exited")
    told = [selects for _, selects in _told(ran)]
    assert [ran.iterations("Before"), ran.iterations("After")] == [told[0] - 1, told[1]]  # the last one never ended


def _selects(ran: Observed) -> dict[int, int]:
    """What each process counted itself, by pid."""
    return dict(_told(ran))


def _told(ran: Observed) -> list[tuple[int, int]]:
    import json

    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    return [(line["pid"], line["selects"]) for line in lines]


def _iterations(ran: Observed) -> dict[int, int]:
    """What was recorded of each process, by pid."""
    return {loop.pid: sum(loop.counts.values()) for loop in ran.recording.loops}


STALLS_AND_IS_GONE = """
import os, warnings
from truth import *

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and newer warn of a fork beside our thread
async def stall():
    await asyncio.sleep(0)
    sleep(0.02)

child = os.fork()
if not child:
    named_loop("Child").run_until_complete(stall())
    os._exit(0)  # as multiprocessing ends its children: no exit function runs
os.waitpid(child, 0)
tell()
"""


def test_a_forked_child_hands_over_its_stalls_before_it_is_gone(observing: Observing) -> None:
    ran = observing.run(STALLS_AND_IS_GONE)
    assert (ran.code, ran.stderr) == (0, "")
    assert [stall.duration_ns >= 20_000_000 for stall in ran.recording.stalls] == [True]
