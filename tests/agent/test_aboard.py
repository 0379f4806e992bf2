"""The agent never hurts its host: its own errors, the program's exceptions, a collector that is gone, and leaving."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.agent.observing import Observing

# Each makes C code fail inside ours, so that the error is raised in one of our frames.
SABOTAGE = {
    "select": "state.started = 'x'",
    "slow iteration": "agent().threshold_ns = 'x'",
    "handler": "state.last = 'x'",
    "identity": "agent().handlers.add = int",
    "collection": "agent().pauses._floor_ns = 'x'",
    "watchdog": "agent().watchdog._quarter_ns = 'x'",
    "record": "agent().pauses.within = int",
    "new loop": "agent().open_loop = int",
}
# What stands in their place where the pulse measures; None: there is nothing of ours in that place.
SABOTAGE_OF_PULSE = {
    "select": None,
    "slow iteration": None,
    "handler": None,
    "watchdog": "agent().pulse.take = int",
    "record": "agent().handlers.name_of = int",
}
PROGRAM = """
import asyncio, gc, sys, time
from truth import *

def handler(number): spin(0.3)
async def work(loop):
    for number in range(20):
        def fresh(number=number): spin(0.3)
        loop.call_soon(fresh)
        await asyncio.sleep(0.001)
    gc.collect()
    time.sleep(0.03)
    await asyncio.sleep(0.001)

first, second = named_loop("First"), named_loop("Second")
first.run_until_complete(asyncio.sleep(0))
if %(sabotaged)r:
    async def sabotage():
        state = first._stallscope_state
        %(sabotage)s
    first.run_until_complete(asyncio.sleep(0))
    work, whole = (lambda loop: sabotaged(loop)), work
    async def sabotaged(loop):
        if loop is first: await sabotage()
        await whole(loop)
first.run_until_complete(work(first))
second.run_until_complete(work(second))
print("the program's own words")
if %(sabotaged)r:
    out = wait_until(lambda: not agent().alive[0] and not is_hooked())
    tell(out=out, hooked=is_hooked(), left=is_observed(first) or is_observed(second))
"""


@pytest.mark.parametrize("where", SABOTAGE)
def test_an_error_of_the_agent_takes_it_out_and_the_program_goes_on(observing: Observing, where: str) -> None:
    sabotage = {**SABOTAGE, **(SABOTAGE_OF_PULSE if observing.library else {})}[where]
    if sabotage is None:
        pytest.skip("the pulse measures waits and handlers in C: there is no Python of ours to fail")
    ran = observing.run(PROGRAM % {"sabotaged": True, "sabotage": sabotage})
    assert (ran.stdout.splitlines()[:1], ran.stderr) == (["the program's own words"], "")
    assert ran.told == {"out": True, "hooked": [], "left": False}
    (process,) = ran.recording.processes
    assert process.ending.startswith("disabled: TypeError: ")
    assert "_agent" not in process.ending
    assert process.ending.endswith(")")  # where
    assert "what came after the agent's error" in {missing.what for missing in ran.recording.fidelity.missing}


def test_what_a_signal_handler_raises_in_our_code_goes_to_the_program(observing: Observing) -> None:
    if observing.library:
        pytest.skip("the pulse measures waits and handlers in C, where no Python signal handler runs")
    ran = observing.run(
        """
        import asyncio, os, signal
        from truth import *

        class Interrupt(Exception): pass
        own = os.path.dirname(agent_module("asyncio_hooks").__file__)
        raised = []
        def on_alarm(number, frame):
            if frame.f_code.co_filename.startswith(own) and frame.f_code.co_name in ("_run", "observed_select"):
                raised.append(frame.f_code.co_name)
                raise Interrupt
        signal.signal(signal.SIGALRM, on_alarm)

        loop = named_loop("Interrupted")
        def again(): loop.call_soon(again)
        again()
        caught = []
        loop.set_exception_handler(lambda loop, context: caught.append("as a handler's error"))
        def interrupted_often():
            again()
            signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
            try:
                loop.run_forever()
            except Interrupt:
                caught.append("by the program")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            return len(raised) >= 10
        enough = wait_until(interrupted_often)
        tell(enough=enough, lost=len(raised) - len(caught), aboard=agent().aboard(), hooked=is_hooked())
        """
    )
    hooked = ["Handle._run", "_set_coroutine_origin_tracking", "gc.callbacks"]
    assert ran.told == {"enough": True, "lost": 0, "aboard": True, "hooked": hooked}
    assert ran.recording.processes[0].ending == "exited"


def test_it_goes_when_its_collector_was_killed(observing: Observing) -> None:
    program = observing.program(
        """
        import asyncio, sys, time
        from truth import *

        async def main(loop):
            print("ready", flush=True)
            hooked = is_hooked()
            went = False
            for _ in range(3000):
                await asyncio.sleep(0.01)
                if not is_hooked():
                    went = True
                    break
            tell(hooked=hooked, went=went, left=is_observed(loop))
        loop = Loop()
        loop.run_until_complete(main(loop))
        """
    )
    command = [sys.executable, "-m", "stallscope", "run", "-o", str(observing.directory / "killed.stall"), "--"]
    with subprocess.Popen(
        [*command, observing.interpreter.executable, str(program)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=observing.directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])},
    ) as collector:
        assert collector.stdout is not None
        assert collector.stdout.readline() == "ready\n"
        collector.send_signal(signal.SIGKILL)
        told = collector.stdout.read()  # nobody has reaped the collector yet: it is a zombie, and no less gone
    hooked = '["Handle._run", "_set_coroutine_origin_tracking", "gc.callbacks"]'
    assert told == f'{{"hooked": {hooked}, "went": true, "left": false}}\n'


STARTS_AND_STOPS = """
import asyncio, gc, os, sys, weakref
from truth import *

package, config = sys.modules["_stallscope_agent"], agent().config
package.stop()

def target_of(number):
    try:
        return os.readlink("/proc/self/fd/" + number)
    except OSError:  # the listing itself
        return None

def surroundings():
    return {
        "hooked": is_hooked(),
        "files": sorted(filter(None, map(target_of, os.listdir("/proc/self/fd")))),
        "threads": len(os.listdir("/proc/self/task")),
        "callbacks": len(gc.callbacks),
        "finders": len(sys.meta_path),
        "classes": [sorted(vars(asyncio.Handle)), sorted(vars(asyncio.BaseEventLoop))],
        "run": id(asyncio.Handle._run), "track": id(asyncio.BaseEventLoop._set_coroutine_origin_tracking),
    }

def quiet(): return len(os.listdir("/proc/self/task")) == 1

async def some(): await asyncio.sleep(0)
async def stopping():  # a start and a stop while the loop runs
    package.start(config)
    await asyncio.sleep(0)
    first = agent().aboard()
    package.stop()
    await asyncio.sleep(0)
    return first

loop, twice, agents = Loop(), True, []
loop.run_until_complete(some())
wait_until(quiet)
gc.collect()
before = surroundings()
for _ in range(100):
    started = package.start(config)
    agents.append(weakref.ref(started))
    twice = twice and package.start(config) is started
    loop.run_until_complete(some())
    package.stop()
    package.stop()
    del started
    twice = loop.run_until_complete(stopping()) and twice
wait_until(quiet)
gc.collect()
after = surroundings()
changed = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
tell(twice=twice, kept=sum(agent() is not None for agent in agents), changed=changed, left=is_observed(loop))
"""


def test_a_hundred_starts_and_stops_leave_nothing_behind(observing: Observing) -> None:
    ran = observing.run(STARTS_AND_STOPS)
    assert ran.told == {"twice": True, "kept": 0, "changed": {}, "left": False}
    assert len(ran.recording.loops) >= 100


def test_stopped_before_asyncio_is_imported_it_does_not_come_back(observing: Observing) -> None:
    ran = observing.run(
        """
        import sys
        waiting = len(sys.meta_path)
        sys.modules["_stallscope_agent"].stop()
        stopped = len([finder for finder in sys.meta_path if "_stallscope" in type(finder).__module__])
        from truth import *
        asyncio.run(asyncio.sleep(0))
        tell(waited=waiting > stopped, left=stopped, hooked=is_hooked())
        """
    )
    assert ran.told == {"waited": True, "left": 0, "hooked": []}
    assert ran.recording.loops == ()
