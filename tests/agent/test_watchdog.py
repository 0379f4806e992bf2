"""What the watchdog finds: duration against the program's own clock, line, call; and what it must not lose."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from stallscope.agent import layout
from stallscope.recording.nouns import Recording, Stall
from tests.agent.observing import TEN_MS, Observing

STALLS = """
import asyncio, ctypes, fcntl, gc, os, sys, subprocess, threading, time
from truth import Loop, monotonic_ns, spin, tell

PEER = '''
import fcntl, os, sys, time
locked, fifo = os.open("locked", os.O_RDWR), os.open("fifo", os.O_RDWR)
for line in sys.stdin:
    if line == "lock\\\\n":
        fcntl.flock(locked, fcntl.LOCK_EX)
    os.write(1, b".")
    time.sleep(0.05)
    os.write(fifo, b"x") if line == "feed\\\\n" else fcntl.flock(locked, fcntl.LOCK_UN)
'''
os.mkfifo("fifo")
locked, fifo = os.open("locked", os.O_RDWR | os.O_CREAT), os.open("fifo", os.O_RDWR)
peer = subprocess.Popen([sys.executable, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
lock = threading.Lock()
gc.disable()
heap = []

def ask(what):
    peer.stdin.write(what)
    peer.stdout.read(1)

def lend(seconds):
    lent = threading.Event()
    def hold():
        with lock:
            lent.set()
            time.sleep(seconds)
    threading.Thread(target=hold).start()
    lent.wait()

def sleep(): time.sleep(0.05)
def read(): os.read(fifo, 1)
def flock(): fcntl.flock(locked, fcntl.LOCK_EX)
def take(): lock.acquire()
def compute():
    end = monotonic_ns() + 50000000
    while monotonic_ns() < end: sum(range(50))
def collect(): gc.collect()
def native(): sum(numbers)

def grow():
    spent = 0
    while spent < 50000000:
        heap.append([[number] for number in range(50000)])
        begun = monotonic_ns()
        gc.collect()
        spent = monotonic_ns() - begun

def size_of_native():
    count, spent = 1000000, 0
    while spent < 50000000:
        count *= 2
        begun = monotonic_ns()
        sum(range(count))
        spent = monotonic_ns() - begun
    return range(count)

PREPARE = {"read": lambda: ask(b"feed\\n"), "flock": lambda: ask(b"lock\\n"), "take": lambda: lend(0.05)}
KINDS = [sleep, read, flock, take, compute, collect, native]
times = []

async def handler(kind):
    begun = monotonic_ns()
    kind()
    times.append({"kind": kind.__name__, "begun": begun, "ended": monotonic_ns()})

async def main():
    for kind in KINDS * 3:
        PREPARE.get(kind.__name__, int)()
        await asyncio.sleep(0.001)
        await asyncio.get_running_loop().create_task(handler(kind))
        if kind is flock: fcntl.flock(locked, fcntl.LOCK_UN)
        if kind is take: lock.release()

grow()
numbers = size_of_native()
loop = Loop()
loop.run_until_complete(main())
peer.communicate()
lines = {kind.__name__: kind.__code__.co_firstlineno for kind in KINDS}
tell(stalls=times, iterations=loop.selector.iterations, lines=lines)
"""
CALLS = {
    "sleep": {"clock_nanosleep", "nanosleep", "select", "pselect6"},
    "read": {"read"},
    "flock": {"flock"},
    "take": {"futex", "sem_wait"},
}


def test_stalls_are_found_with_their_duration_line_and_call(observing: Observing) -> None:
    ran = observing.run(STALLS)
    found: dict[str, list[Stall]] = defaultdict(list)
    iterations = ran.told["iterations"]
    for truth in ran.told["stalls"]:
        begun, ended = truth["begun"], truth["ended"]
        (place,) = [place for place, ends in enumerate(iterations) if ends[0] <= begun < ends[1]]
        around = iterations[place]
        if observing.library:  # its iterations begin and end in C, inside the waits
            around = [iterations[place - 1][1], iterations[place + 1][0]]
        if ended - begun >= TEN_MS:  # its companion may have been faster than the program itself
            stall = _during(ran.recording, begun)
            assert ended - begun <= stall.duration_ns <= around[1] - around[0], truth
            found[truth["kind"]].append(stall)
    assert set(found) == set(ran.told["lines"])
    assert sum(len(stalls) for stalls in found.values()) > len(ran.told["stalls"]) / 2
    for kind, line in ran.told["lines"].items():
        assert any(_explains(observing.directory, stall, kind, line) for stall in found[kind]), (kind, found[kind])


def _during(recording: Recording, at_ns: int) -> Stall:
    found = [stall for stall in recording.stalls if stall.start_ns <= at_ns < stall.start_ns + stall.duration_ns]
    assert len(found) == 1, (at_ns, recording.processes, [stall.start_ns for stall in recording.stalls])
    return found[0]


def _explains(directory: Path, stall: Stall, kind: str, line: int) -> bool:
    """Whether this stall's samples show its line, handler and call; on a busy machine one may go without samples."""
    if kind == "native":  # C code that holds the GIL: the watchdog comes when all is over, or too late
        return True
    lines = range(line, line + 3 if kind == "compute" else line + 1)
    tops = [part.stack[0] for part in stall.spans if part.stack] + [call.stack[0] for call in stall.calls if call.stack]
    at_line = [top for top in tops if top.function == kind and top.line in lines and top.file.endswith("program.py")]
    named = stall.current is not None and stall.current.name == "handler"
    return bool(at_line) and named and _call_is_right(directory, stall, kind)


def _call_is_right(directory: Path, stall: Stall, kind: str) -> bool:
    if kind == "collect":
        tops = [pause.stack[0].function for pause in stall.pauses]
        return tops[:1] == ["collect"] and sum(pause.duration_ns for pause in stall.pauses) > stall.duration_ns / 2
    calls = [span.call for span in stall.spans if span.call is not None] + [timed.call for timed in stall.calls]
    touched = {call.resource.name for call in calls if call.resource is not None}
    file = {"read": "fifo", "flock": "locked"}.get(kind)
    return (kind not in CALLS or bool({call.name for call in calls} & CALLS[kind])) and (
        file is None or str(directory / file) in touched
    )


@pytest.mark.parametrize("watchdog", ["prompt", "late"])
def test_what_the_ring_cannot_hold_is_counted(observing: Observing, watchdog: str) -> None:
    ran = observing.run(
        """
        import asyncio, sys
        from truth import *

        agent_module("watchdog")._DETAILS_A_SECOND = 10**9
        async def main():
            for _ in range(20000): await asyncio.sleep(0)
        loop = named_loop("Busy")
        if sys.argv[1] == "late":
            agent().watchdog._work.acquire()  # as if it were still writing what came before
        loop.run_until_complete(main())
        if sys.argv[1] == "late":
            agent().watchdog._work.release()
        tell(selects=loop.selector.selects, aboard=agent().aboard())
        """,
        watchdog,
        threshold_ns=63,
        drains=False,
    )
    counts = ran.loop("Busy").counts
    stalls = sum(count for bucket, count in counts.items() if layout.bounds_ns(bucket)[0] >= 63)
    assert ran.told == {"selects": sum(counts.values()), "aboard": True}
    assert 0 < len(ran.recording.stalls) <= layout.RECORDS
    assert len(ran.recording.stalls) + ran.recording.suppressed == stalls


def test_details_are_rate_limited_and_what_is_withheld_is_counted(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio
        from truth import *

        async def main():
            for _ in range(300):
                spin(2.1)
                await asyncio.sleep(0)
        asyncio.run(main())
        """,
        threshold_ns=2_000_000,
    )
    finished = [stall for stall in ran.recording.stalls if stall.finished]
    by_second = Counter((stall.start_ns + stall.duration_ns) // 1_000_000_000 for stall in finished)
    assert max(by_second.values()) <= 50
    assert len(ran.recording.stalls) + ran.recording.suppressed >= 300


def test_the_interpreter_ends_while_another_thread_s_loop_is_stalled(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio, threading, time
        from truth import *

        def stall(): time.sleep(3600)
        loop = named_loop("Hung")
        loop.call_soon(stall)
        threading.Thread(target=loop.run_forever, daemon=True).start()
        sampled = wait_until(lambda: any(state.progress and state.published for state in agent().open_loops))
        tell(sampled=sampled)
        """
    )
    assert (ran.code, ran.stderr, ran.told) == (0, "", {"sampled": True})
    (stall,) = ran.recording.stalls
    assert stall.spans[-1].stack[0].function == "stall"
    assert stall.duration_ns > TEN_MS
