"""A loop that several threads meet at the same moment, as happens when the agent comes to a program that runs."""

from __future__ import annotations

from tests.agent.observing import Observing

# The second thread stands where the one does that brings the agent to a running program: it is in the middle of
# adopting the loop when a handler of that loop runs.
MET_TWICE = """
import asyncio, threading
from truth import *

loop = named_loop("Met")
among, gone_on = threading.Event(), threading.Event()
opens, opened = agent().open_loop, []
def slow_at_first(*about):
    opened.append(about[1])
    if len(opened) == 1:
        among.set()
        gone_on.wait(20)
    return opens(*about)
agent().open_loop = slow_at_first

async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)

async def met():
    await turns(20)
    gone_on.set()
    await loop.run_in_executor(None, other.join)
    await turns(20)
    states = [state for state in agent().open_loops if state.loop() is loop]
    agent().alive[0] = 0  # it begins to leave, and has not yet taken anything off
    await turns(20)
    agent().alive[0] = 1
    tell(opened=opened.count(loop), states=len(states))

other = threading.Thread(
    target=agent()._hooks.adopt, args=(loop, threading.get_ident(), threading.get_native_id()))
other.start()
among.wait(20)
loop.run_until_complete(met())
"""


def test_a_loop_that_two_threads_meet_at_once_is_observed_once(observing: Observing) -> None:
    ran = observing.run(MET_TWICE)
    assert ran.stderr == ""
    assert ran.told == {"opened": 1, "states": 1}
