"""Loops of every way of living: each iteration of each is counted, as often as its selector waited."""

from __future__ import annotations

from stallscope.agent import layout
from tests.agent.observing import Observing

WAYS = """
import asyncio, threading
from asyncio import events
from truth import *

loops = {}
def make(name):
    loops[name] = named_loop(name)
    return loops[name]

async def some(count, pause=0.0):
    for _ in range(count): await asyncio.sleep(pause)

def one_after_another():
    make("First").run_until_complete(some(10))
    loops["First"].close()
    later = make("Later")
    for _ in range(3): later.run_until_complete(some(7, 0.001))

def in_threads():
    together = threading.Barrier(4)
    def work(loop):
        together.wait()
        loop.run_until_complete(some(300))
        loop.close()
    threads = [threading.Thread(target=work, args=(make("Thread%d" % n),), name="worker-%d" % n) for n in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

def re_entered():
    loop = make("Nested")
    def handler():
        task = loop.create_task(some(5))
        current = asyncio.current_task(loop)
        while not task.done():
            loop._run_once()
    loop.call_soon(handler)
    loop.run_until_complete(some(10))

def within_a_handler():
    outer, inner = make("Outer"), make("Inner")
    def handler():
        events._set_running_loop(None)
        try:
            inner.run_until_complete(some(5))
        finally:
            events._set_running_loop(outer)
    outer.call_soon(handler)
    outer.run_until_complete(some(10))

def debugged():
    loop = make("Debug")
    loop.set_debug(True)
    loop.run_until_complete(some(10))
    turning = make("Turning")
    async def turn():
        for number in range(6):
            asyncio.get_running_loop().set_debug(number % 2 == 0)
            await asyncio.sleep(0.001)
    turning.run_until_complete(turn())

def stopped_in_a_stall():
    loop = make("Stopped")
    def last():
        loop.stop()
        stall_until_seen()
    loop.call_soon(last)
    loop.run_forever()
    loop.close()

def left_by_an_exception(error):
    loop = make("Left" + error.__name__)
    def leave(): raise error
    async def leave_from_task(): raise error
    for start in (lambda: loop.call_soon(leave), lambda: loop.create_task(leave_from_task())):
        start()
        try:
            loop.run_until_complete(some(5))
        except error:
            pass
    loop.run_until_complete(some(3))

one_after_another()
in_threads()
re_entered()
within_a_handler()
debugged()
stopped_in_a_stall()
left_by_an_exception(SystemExit)
left_by_an_exception(KeyboardInterrupt)
tell(selects={name: loop.selector.selects for name, loop in loops.items()}, aboard=agent().aboard(),
     left=[name for name, loop in loops.items() if is_observed(loop)])
"""


def test_iterations_are_counted_exactly_in_every_way_of_running_a_loop(observing: Observing) -> None:
    ran = observing.run(WAYS)
    assert {name: ran.iterations(name) for name in ran.told["selects"]} == ran.told["selects"]
    assert (ran.told["aboard"], ran.told["left"]) == (True, [])
    assert {ran.loop(f"Thread{number}").name for number in range(4)} == {f"worker-{n} Thread{n}" for n in range(4)}
    stalled = {stall.loop_id for stall in ran.recording.stalls if stall.current and stall.current.name.endswith("last")}
    assert stalled == {ran.loop("Stopped").id}


def test_loops_run_one_after_another_share_a_slot(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio
        from truth import *

        selects = 0
        async def main(): await asyncio.sleep(0)
        for _ in range(200):
            loop = named_loop("Sequential")
            loop.run_until_complete(main())
            loop.close()
            selects += loop.selector.selects
        for _ in range(200): asyncio.run(main())
        tell(selects=selects)
        """
    )
    assert ran.iterations("Sequential") == ran.told["selects"]
    assert len(ran.recording.loops) == 2  # those of asyncio.run share the other


def test_loops_without_a_slot_run_on_unseen_and_slots_are_given_away_again(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio, threading
        from truth import *

        together = threading.Barrier(70)
        async def meet():
            await asyncio.sleep(0)
            together.wait()
            await asyncio.sleep(0)
        def work(loop):
            loop.run_until_complete(meet())
            loop.close()
        loops = [named_loop("Many%d" % number) for number in range(70)]
        threads = [threading.Thread(target=work, args=(loop,)) for loop in loops]
        for thread in threads: thread.start()
        for thread in threads: thread.join()

        selects = {"Many%d" % number: loop.selector.selects for number, loop in enumerate(loops)}
        def late(number):
            loop = named_loop("Late%d" % number)
            loop.run_until_complete(see(loop))
            loop.close()
            selects["Late%d" % number] = loop.selector.selects
        seen = []
        async def see(loop): seen.append(is_observed(loop))
        def one_more():
            late(len(seen))
            return seen[-1]
        given = wait_until(one_more)
        tell(selects=selects, given=given)
        """
    )
    selects = ran.told["selects"]
    named = [loop for loop in ran.recording.loops if loop.name.rpartition(" ")[2] in selects]
    counted = {loop.name.split()[-1]: sum(loop.counts.values()) for loop in named}
    slots = layout.UNDECLARED if observing.library else layout.LOOPS  # the pulse finds others, and gives the rest
    assert ran.told["given"]
    assert counted == {name: selects[name] for name in counted}
    assert len([name for name in counted if name.startswith("Many")]) == slots
    assert len([name for name in counted if name.startswith("Late")]) == 1
    missing = {missing.what for missing in ran.recording.fidelity.missing}
    if not observing.library:
        assert f"{len(selects) - len(counted)} loops" in missing
    assert any(what.endswith(" loops") for what in missing)


INLINE = """
import asyncio, gc, time
from truth import *

def is_inline(thing):
    # CPython 3.11 and 3.12 make a dict of an object's attributes only when somebody asks for it, and are slower then.
    return not any(type(one) is dict and ("_ready" in one or "_fd_to_key" in one) for one in gc.get_referents(thing))

async def main():
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, time.sleep, 0)
    until = time.monotonic() + 0.25  # the watchdog looks at loops and their pools ten times a second
    while time.monotonic() < until: await asyncio.sleep(0.001)
    stall_until_seen()

never_run, loop = asyncio.new_event_loop(), named_loop("Run")
for _ in range(2): loop.run_until_complete(main())
tell(bare=[is_inline(never_run), is_inline(never_run._selector)], ours=[is_inline(loop), is_inline(loop._selector)])
"""


def test_attributes_of_a_loop_and_its_selector_stay_as_fast_as_they_were(observing: Observing) -> None:
    ran = observing.run(INLINE)
    assert ran.iterations("Run") > 100
    assert ran.told["ours"] == ran.told["bare"]
