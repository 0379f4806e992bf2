"""Programs with the handler runner aboard, by name; each prints what it found as JSON."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import json
import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict  # noqa: UP035 (CPython 3.8)

from runner_aboard import Aboard, original, runner, stacks  # type: ignore[import-not-found]

MS = 1_000_000
Found = Dict[str, Any]  # noqa: UP006 (CPython 3.8): what a program tells


def run(loop: Any, *callbacks: Callable[[], Any]) -> None:
    """Run the loop until all of these are called, in one iteration."""
    for callback in callbacks:
        loop.call_soon(callback)
    loop.call_soon(loop.stop)
    loop.run_forever()


loops: list[Any] = []


def made() -> Any:
    """A loop that is closed at the end."""
    loops.append(asyncio.new_event_loop())
    return loops[-1]


def new_loop(aboard: Aboard) -> Any:
    """A loop that is observed from its first iteration on."""
    loop = made()
    run(loop, lambda: None)
    assert aboard.opened == 1
    return loop


def spin(ns: int) -> None:
    end = time.monotonic_ns() + ns
    while time.monotonic_ns() < end:
        pass


def long_calls() -> Found:
    """Calls of a 64th of the threshold or more are counted one by one, and named."""
    aboard = Aboard(threshold_ns=64 * 20_000)
    loop = new_loop(aboard)

    class Thing:
        def method(self) -> None:
            spin(20_000)

        def __call__(self) -> None:
            spin(20_000)

    def function() -> None:
        spin(20_000)

    def inner(value: int) -> None:
        spin(20_000)

    async def coroutine(steps: int) -> None:
        for _ in range(steps):
            spin(20_000)
            await asyncio.sleep(0)
        spin(20_000)

    thing, part, slow = Thing(), functools.partial(inner, 1), functools.partial(time.sleep, 0.000_1)
    for _ in range(50):
        run(loop, function, thing.method, thing, part, slow)
        loop.run_until_complete(coroutine(3))
    calls = aboard.calls()
    aboard.leave()
    return {"calls": calls}


def short_calls() -> Found:
    """Short ones are drawn, and weighted."""
    aboard = Aboard(threshold_ns=1_000 * MS)
    loop = new_loop(aboard)

    def one() -> None:
        pass

    def other() -> None:
        pass

    for _ in range(300):
        run(loop, *[one, other] * 100)
    calls = aboard.calls()
    aboard.leave()
    return {"one": calls["short_calls.<locals>.one"], "other": calls["short_calls.<locals>.other"]}


def adoption() -> Found:
    """A loop that nobody opened is offered once, in each thread; one that was refused no oftener than once a second."""
    offered: list[Any] = []
    aboard = Aboard(adopt=offered.append)
    loop = made()
    begun = time.monotonic()
    for _ in range(1000):
        run(loop, lambda: None)
    at_most = 1 + int(time.monotonic() - begun)
    refused = len(offered), at_most, offered[0] is loop
    thread = threading.Thread(target=run, args=(made(), lambda: None))
    thread.start()
    thread.join()
    in_thread = len(offered)
    aboard.leave()
    aboard = Aboard(threshold_ns=64 * 20_000)

    def work(loop: Any) -> None:
        for _ in range(100):
            run(loop, functools.partial(spin, 20_000))
        aboard.pulse.close()

    threads = [threading.Thread(target=work, args=(made(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls = aboard.calls()
    aboard.leave()
    return {"refused": refused, "in_thread": in_thread, "opened": aboard.opened, "calls": calls["spin"]}


def stalls(aboard: Aboard) -> list[Any]:
    """The stalls since the last time."""
    return list(aboard.pulse.take(all_of_it=True)[0])


def overdue() -> Found:
    """In an overdue iteration every handler is noted, with its time."""
    aboard = Aboard(threshold_ns=20 * MS)
    loop = new_loop(aboard)

    def slow() -> None:
        spin(60 * MS)

    def after() -> None:
        pass

    for _ in range(50):  # until the watchdog was there in time
        run(loop, slow, after, after)
        run(loop)
        for stall in stalls(aboard):
            names = {aboard.handlers._names[base]: part for base, *part in stall.parts}
            if "overdue.<locals>.slow" in names:
                aboard.leave()
                return {"parts": names, "ns": stall.end_ns - stall.start_ns}
    raise SystemExit("the watchdog never found an iteration of 60 ms overdue")


def own_calls() -> Found:
    """A call that the agent makes is not the program's; one that the callback makes is."""
    aboard = Aboard(threshold_ns=20 * MS)
    loop = new_loop(aboard)
    add = aboard.handlers.add

    def slow_add(*arguments: Any) -> int:
        time.sleep(0.05)
        return int(add(*arguments))

    aboard.handlers.add = slow_add
    run(loop, lambda: spin(MS))
    run(loop)
    ours = [len(stall.calls) for stall in stalls(aboard)]
    aboard.handlers.add = add
    run(loop, lambda: time.sleep(0.05))
    run(loop)
    theirs = [len(stall.calls) for stall in stalls(aboard)]
    aboard.leave()
    return {"ours": ours, "theirs": theirs}


def resting() -> Found:
    """Stacks of the main thread are taken by a thread that rests, and that goes on to rest."""
    aboard = Aboard(threshold_ns=20 * MS)
    loop = new_loop(aboard)
    is_over = threading.Event()

    def rest() -> None:
        aboard.pulse.wait(3600 * 1000 * MS, 3600 * 1000 * MS)
        is_over.set()

    def until_met() -> None:
        aboard.pulse._captured.clear()
        captured = aboard.pulse._captured
        while not captured or not captured[-1][2]:  # what the iteration before had asked for is answered without one
            pass

    thread = threading.Thread(target=rest)
    thread.start()
    functions = []
    for _ in range(3):
        run(loop, until_met)
        stack = next(stack for _, _, stack, _ in aboard.pulse._captured if stack)
        functions.append(stack[0].co_name)
    rested = not is_over.is_set()
    aboard.pulse.nudge()
    thread.join()
    return {"functions": functions, "rested": rested}


def working() -> Found:
    """C code takes the GIL while the agent's thread is at work, and keeps it until that thread goes to rest."""
    aboard = Aboard(threshold_ns=20 * MS)
    loop = new_loop(aboard)
    at_work, rested = threading.Lock(), threading.Lock()
    took_ns: list[int] = []

    def work() -> None:
        at_work.acquire()
        aboard.pulse.give_way()
        rested.release()

    def compute() -> None:
        at_work.release()
        begun = time.monotonic_ns()
        sum(range(10_000_000))
        took_ns.append(time.monotonic_ns() - begun)
        rested.acquire()

    at_work.acquire()
    rested.acquire()
    thread = threading.Thread(target=work)
    thread.start()
    run(loop, compute)
    thread.join()
    _, late_ns, stack, _ = max(aboard.pulse._captured, key=lambda one: one[1])  # those of calls are never late
    return {"function": stack[0].co_name, "late": late_ns > took_ns[0] // 2}


def leaving() -> Found:
    """The runner leaves while one of its handlers runs; that handler fails afterwards."""
    aboard = Aboard()
    loop = new_loop(aboard)
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    kept = asyncio.Handle._run
    seen: list[Any] = []

    def leave() -> None:
        aboard.leave()
        raise ValueError("after")

    run(loop, leave, lambda: seen.append(1))
    restored = asyncio.Handle._run is original
    handle = asyncio.Handle(seen.append, (2,), loop)
    kept(handle)
    again = Aboard()
    run(loop, lambda: None)  # by which it is met again
    run(loop, lambda: spin(MS))
    counted = again.calls()["leaving.<locals>.<lambda>"]
    again.leave()
    return {"told": told, "restored": restored, "seen": seen, "again": counted}


def patched() -> Found:
    """Somebody's own _run, before us and after us."""

    def theirs(self: Any) -> None:
        seen.append(self)
        below(self)

    seen: list[Any] = []
    below: Any = original
    aboard = Aboard(threshold_ns=64 * MS)
    library = aboard.functions
    before = runner.obstacle(library, theirs)
    loop = new_loop(aboard)
    below = asyncio.Handle._run
    asyncio.Handle._run = theirs  # type: ignore[method-assign]
    run(loop, lambda: spin(MS))
    calls, there = len(seen), aboard.calls()["patched.<locals>.<lambda>"]
    aboard.leave()
    stays = asyncio.Handle._run is theirs
    run(loop, lambda: spin(MS))
    return {
        "before": before, "ours": runner.obstacle(library, below), "without": runner.obstacle({}, original),
        "calls": calls, "counted": there, "stays": stays, "later": len(seen),
        "after": aboard.calls()["patched.<locals>.<lambda>"],
    }  # fmt: skip


def unusual_handles() -> Found:
    """Subclasses and debug mode are measured too, and a cancelled handle does what it always did."""
    aboard = Aboard(threshold_ns=64 * 20_000)
    loop = new_loop(aboard)

    class Own(asyncio.Handle):
        pass

    def called() -> None:
        spin(20_000)

    for debug in (False, True):
        loop.set_debug(debug)
        for kind in (asyncio.Handle, Own):
            loop._ready.append(kind(called, (), loop))
            run(loop)
        loop.call_later(0, called)
        time.sleep(0.001)
        run(loop)
        run(loop)
    loop.set_debug(False)
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"]).__name__))
    handle = asyncio.Handle(called, (), loop)
    handle.cancel()
    handle._run()
    bare = asyncio.Handle.__new__(asyncio.Handle)
    try:
        bare._run()
    except AttributeError as error:
        told.append(str(error))
    for wrong in (3, loop):
        try:
            asyncio.Handle._run(wrong)  # type: ignore[arg-type]
        except TypeError:
            told.append("TypeError")
    calls = aboard.calls()
    aboard.leave()
    return {"calls": calls["unusual_handles.<locals>.called"], "told": told}


def contexts() -> Found:
    """A callback runs in its own context; its changes stay there."""
    aboard = Aboard()
    loop = new_loop(aboard)
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen = []

    def look(value: int) -> None:
        seen.append(variable.get())
        variable.set(value)

    one, other = contextvars.copy_context(), contextvars.copy_context()
    for context in (one, other, one):
        loop.call_soon(look, 1 if context is one else 2, context=context)
    run(loop)
    outside = variable.get()
    aboard.leave()
    return {"seen": seen, "outside": outside, "inside": [one[variable], other[variable]]}


def stacks_of_handlers() -> Found:
    """The handler in progress is found in a stack, with asyncio's own frame in it or without."""
    found = []

    def look() -> None:
        found.append(stacks.handler_code(stacks.walk(sys._getframe())).co_name)

    async def step() -> None:
        look()

    for aboard in (Aboard(), None):
        loop = made()
        run(loop, look)
        loop.run_until_complete(step())
        if aboard is not None:
            aboard.leave()
    return {"found": found}


def own_errors() -> Found:
    """An error of the agent's is handed over, and the handler has run; what that raises the program gets."""
    aboard = Aboard(threshold_ns=64 * 20_000)
    loop = new_loop(aboard)
    seen = []

    def broken(*_: object) -> int:
        raise ZeroDivisionError

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    def called() -> None:
        spin(20_000)
        seen.append(1)

    for _ in range(200):  # what stops the loop is identified one time in 16: it is known from here on
        run(loop)
    aboard.handlers.add = broken
    run(loop, called, called)
    errors = [type(error).__name__ for error in aboard.errors]
    aboard.handlers.add = interrupted
    try:
        run(loop, called)
        raised = False
    except KeyboardInterrupt:
        raised = True
    run(loop)
    aboard.leave()
    return {"errors": errors, "seen": len(seen), "raised": raised}


def forked() -> Found:
    """A handler forks: the child goes on with the loop, unobserved; nothing of it is counted."""
    aboard = Aboard(threshold_ns=64 * 20_000)
    loop = new_loop(aboard)
    child: list[int] = []

    def fork() -> None:
        child.append(os.fork())

    def called() -> None:
        spin(20_000)

    run(loop, fork, called)
    if child[0] == 0:
        told: list[Any] = []
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        run(loop, called, called, lambda: 1 // 0)
        os._exit(7 if len(told) == 1 else 8)
    _, status = os.waitpid(child[0], 0)
    calls = aboard.calls()
    aboard.leave()
    return {"status": os.WEXITSTATUS(status), "calls": calls["forked.<locals>.called"]}


def traced() -> Found:
    """A tracer that fails as asyncio's _run is called: the callback's own error is not lost, the handle is whole."""
    aboard = Aboard()
    loop = new_loop(aboard)
    context = contextvars.copy_context()
    handle = asyncio.Handle(lambda value: 1 // value, (0,), loop, context)

    def tracer(frame: Any, event: str, argument: Any) -> None:
        if frame.f_code.co_name == "_run":
            raise RuntimeError("tracer")

    sys.settrace(tracer)
    try:
        handle._run()
        told = None
    except RuntimeError as error:
        told = repr(error.__context__), error.__context__ is not None and error.__context__.__traceback__ is not None
    finally:
        sys.settrace(None)
    whole = handle._context is context and handle._args == (0,)  # type: ignore[attr-defined]
    aboard.leave()
    return {"told": told, "whole": whole}


def signalled() -> Found:
    """A signal handler that raises, in the runner's own work or beside it, ends the run as ever and harms nothing."""
    aboard = Aboard(threshold_ns=64_000)
    loop = new_loop(aboard)

    class Alarm(Exception):
        pass

    def ring(_: int, frame: Any) -> None:
        while frame is not None:  # elsewhere it would harm asyncio itself
            if frame.f_code.co_name == "_run_once":
                raise Alarm
            frame = frame.f_back

    def short() -> None:
        pass

    signal.signal(signal.SIGALRM, ring)
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"]).__name__))
    rings = turn = 0
    begun = time.monotonic()
    while (lasted := time.monotonic() - begun) < 1.0 or (rings + len(told) == 0 and lasted < 30.0):
        turn += 1
        try:  # sooner and later: how long the handlers take is the machine's business
            signal.setitimer(signal.ITIMER_REAL, 0.000_01 * (1 + turn % 50))
            run(loop, *[short] * 200, loop.stop)  # twice: the alarm may ring in one of them
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            rings += 1
    seen = []
    loop._ready.clear()
    run(loop, lambda: seen.append(1))
    errors = [repr(error) for error in aboard.errors if not isinstance(error, Alarm)]
    aboard.leave()
    return {"seen": seen, "told": sorted(set(told)), "errors": errors, "rang": rings + len(told) > 0}


def leaks(handlers: int) -> Found:
    """Blocks of memory and references, before and after so many handlers of each kind."""
    aboard = Aboard()
    loop = new_loop(aboard)
    loop.set_exception_handler(lambda *_: None)
    context, argument, marker = contextvars.copy_context(), object(), object()
    handle: Any = None

    def function(_: object) -> object:
        return marker

    def failing(_: object) -> None:
        raise ValueError("x")

    def cancelling(_: object) -> None:
        handle.cancel()
        raise ValueError("x")

    class Own(asyncio.Handle):
        pass

    async def steps() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    def some() -> None:
        nonlocal handle
        for callback in (function, failing, functools.partial(function)):
            loop.call_soon(callback, argument, context=context)
        loop._ready.append(Own(function, (argument,), loop, context))
        handle = loop.call_soon(cancelling, argument, context=context)
        run(loop)

    def all_of_them(times: int) -> None:
        for _ in range(times // 10):
            some()
        for _ in range(times // 100):
            loop.run_until_complete(steps())

    def held() -> list[int]:
        aboard.pulse._captured.clear()  # stacks of calls, which the agent takes away
        gc.collect()
        counts = [sys.getrefcount(each) for each in (context, argument, marker, function, failing, loop, Own)]
        return [*counts, sys.getallocatedblocks()]

    all_of_them(1000)
    before = held()
    all_of_them(handlers)
    after = held()
    aboard.leave()
    grown = [now - then for then, now in zip(before, after)]  # noqa: B905 (CPython 3.8)
    return {"references": grown[:-1], "blocks": grown[-1]}


if __name__ == "__main__":
    program = globals()[sys.argv[1]]
    print(json.dumps(program(*map(int, sys.argv[2:]))))
    for each in loops:
        each.close()
