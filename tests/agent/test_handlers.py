"""Who ran: the identity of everything that a loop can call, and exact counts of its calls."""

from __future__ import annotations

from stallscope.agent.layout import bounds_ns
from stallscope.recording.nouns import Handler
from tests.agent.observing import Observed, Observing

EVERYTHING_EXACT_NS = 63  # calls under a 64th of the threshold are sampled: none is

EVERY_KIND = """
import asyncio, functools, sys, types
from truth import *

class Service:
    def bound(self): pass
    @classmethod
    def of_class(cls): pass
    @staticmethod
    def static(): pass
    def __call__(self): pass

def callback(): pass
def wrapped(*args, **options): pass
short = lambda: None
async def stepping(times):
    for _ in range(times): await asyncio.sleep(0)
async def waiting(future): await future
@types.coroutine
def generating():
    for _ in range(4): yield
async def outer():
    async def inner(): await asyncio.sleep(0)
    await asyncio.get_running_loop().create_task(inner())

class Silent(type):
    def __getattribute__(cls, name): raise AssertionError("the program's own code was asked for " + name)
class Secret(metaclass=Silent):
    def __getattribute__(self, name): raise AssertionError("the program's own code was asked for " + name)
    def __call__(self): pass

async def main():
    loop, service = asyncio.get_running_loop(), Service()
    futures = [loop.create_future() for _ in range(5)]
    tasks = [loop.create_task(waiting(future)) for future in futures]
    await asyncio.sleep(0)
    for _ in range(3): loop.call_soon(service.bound)
    for _ in range(4): loop.call_soon(Service.of_class)
    for _ in range(5): loop.call_soon(service.static)
    for _ in range(6): loop.call_soon(service)
    for _ in range(7): loop.call_soon(callback)
    for _ in range(8): loop.call_soon(functools.partial(functools.partial(wrapped, 1), 2, key=3))
    for _ in range(9): loop.call_soon(short)
    for _ in range(2): loop.call_soon(Secret())
    loop.call_later(0.001, callback)
    for future in futures: loop.call_soon(future.set_result, None)
    loop.create_task(stepping(10))
    loop.create_task(outer())
    await (loop.create_task(generating()) if sys.version_info < (3, 12) else loop.create_task(stepping(0)))
    await asyncio.gather(*tasks)
    await asyncio.sleep(0.01)

asyncio.run(main())
tell(lines={thing.__qualname__: thing.__code__.co_firstlineno for thing in [
    Service.bound, Service.of_class.__func__, Service.static, Service.__call__, callback, wrapped, short,
    stepping, waiting, outer]}, generating=generating.__code__.co_firstlineno)
"""


def test_every_kind_of_handler_is_identified_and_its_calls_are_counted(observing: Observing) -> None:
    ran = observing.run(EVERY_KIND, threshold_ns=EVERYTHING_EXACT_NS)
    generators = observing.interpreter.version < (3, 12)
    lines, file = ran.told["lines"], str(observing.directory / "program.py")
    calls = {
        "Service.bound": 3,
        "Service.of_class": 4,
        "Service.static": 5,
        "Service.__call__": 6,
        "callback": 8,
        "wrapped": 8,
        "<lambda>": 9,
        "Secret.__call__": 2,
        "Future.set_result": 5,
        "waiting": 10,
        "stepping": 11 if generators else 12,
        "generating": 5 if generators else 0,  # no task can be made of them since 3.12
        "outer": 2,
        "outer.<locals>.inner": 2,
    }
    assert {name: ran.calls[name] for name in calls} == calls
    known = {handler.handler for handler in ran.recording.handlers}
    assert {Handler(name, file, line) for name, line in lines.items()} <= known
    assert (Handler("generating", file, ran.told["generating"]) in known) is generators
    assert Handler("Future.set_result") in known


def test_longer_calls_are_counted_exactly_and_short_ones_by_an_unbiased_sample(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio
        from truth import *

        def long(): spin(0.2)
        def short(): pass
        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(200):
                for _ in range(100): loop.call_soon(short)
                await asyncio.sleep(0)
                loop.call_soon(long)
        asyncio.run(main())
        """
    )
    assert _of_at_least(ran, "long", 200_000) == 200
    assert 20_000 * 0.8 < ran.calls["short"] < 20_000 * 1.2  # the sample's standard deviation is 3 %


def test_short_calls_of_an_overdue_iteration_are_counted_exactly(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio
        from truth import *

        def sleepy(): stall_until_seen()
        def short(): pass
        async def main():
            loop = asyncio.get_running_loop()
            loop.call_soon(sleepy)
            for _ in range(2000): loop.call_soon(short)
            await asyncio.sleep(0)
        asyncio.run(main())
        """
    )
    (stall,) = [stall for stall in ran.recording.stalls if stall.current and stall.current.name == "sleepy"]
    assert {part.handler.name: part.calls for part in stall.handlers}["short"] == 2000
    assert ran.calls["short"] == 2000
    assert ran.calls["sleepy"] == 1


def test_the_caught_handler_and_its_task_are_named(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio
        from truth import *

        class Server:
            async def serve(self): stall_until_seen()
        async def main():
            task = asyncio.get_running_loop().create_task(Server().serve())
            task.set_name("request 7")
            await task
        asyncio.run(main())
        tell(line=Server.serve.__code__.co_firstlineno)
        """
    )
    (stall,) = [stall for stall in ran.recording.stalls if stall.task == "request 7"]
    assert stall.current == Handler("Server.serve", str(observing.directory / "program.py"), ran.told["line"])
    assert stall.handlers[0].handler == stall.current


def test_more_handlers_than_slots_are_gathered_in_one(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio
        from truth import *

        async def main():
            loop = asyncio.get_running_loop()
            for number in range(700):
                space = {}
                exec("def handler_%d(): pass" % number, space)
                loop.call_soon(space["handler_%d" % number])
            await asyncio.sleep(0.01)
        asyncio.run(main())
        """,
        threshold_ns=EVERYTHING_EXACT_NS,
    )
    named = [name for name in ran.calls if name.startswith("handler_")]
    assert 450 < len(named) < 512
    assert len(named) + ran.calls["(other handlers)"] >= 700


def test_no_callback_and_nothing_that_it_holds_is_kept_alive(observing: Observing) -> None:
    ran = observing.run(
        """
        import asyncio, functools, gc, time, weakref
        from truth import *

        class Thing: pass
        gc.disable()
        watched = []
        def schedule(loop):
            thing = Thing()
            watched.append(weakref.ref(thing))
            def closure(): thing
            async def coroutine(): thing; time.sleep(0.02); await asyncio.sleep(0)
            loop.call_soon(closure)
            loop.call_soon(functools.partial(id, thing))
            loop.create_task(coroutine())
        async def main():
            for _ in range(3):
                schedule(asyncio.get_running_loop())
                await asyncio.sleep(0.03)
        loop = Loop()
        loop.run_until_complete(main())
        kept = sum(ref() is not None for ref in watched)
        loop.close()
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        tell(kept=kept, loop_is_gone=gone() is None, aboard=agent().aboard())
        """,
        threshold_ns=1_000_000,
    )
    assert ran.told == {"kept": 0, "loop_is_gone": True, "aboard": True}


def _of_at_least(ran: Observed, name: str, duration_ns: int) -> int:
    """Calls of a handler whose bucket reaches this duration."""
    return sum(
        count
        for handler in ran.recording.handlers
        if handler.handler.name == name
        for bucket, count in handler.counts.items()
        if bounds_ns(bucket)[1] > duration_ns
    )
