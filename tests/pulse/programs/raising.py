"""Handlers that fail in every way. What it prints has to be the same with the runner and without it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import os
import sys
import traceback
import types
import weakref
from typing import Any

if "PULSE" in os.environ:
    import runner_aboard  # type: ignore[import-not-found]

    runner_aboard.Aboard()

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
loop = asyncio.new_event_loop()
once = ValueError("the same each time")


class Leaving(BaseException):
    pass


class Unlucky(Exception):
    def __init__(self) -> None:
        raise TypeError("cannot be made")


class Thing:
    def method(self) -> None:
        self.missing  # type: ignore[attr-defined]  # noqa: B018

    def __call__(self) -> None:
        raise OSError(2, "no such thing")


class Overriding(asyncio.Handle):
    def _run(self) -> None:
        print("overriding")
        super()._run()


class Shadowing(asyncio.Handle):
    _callback = property(lambda self: deep)

    def __init__(self, *arguments: Any) -> None:
        self.context = arguments[-1]
        self._loop, self._context, self._args = loop, arguments[-1], ()
        self._cancelled, self._repr, self._source_traceback = False, None, None


class OwnContext:
    def run(self, callback: Any, *arguments: Any) -> Any:
        print("own context", arguments)
        return callback(*arguments)


def deep(levels: int = 2) -> None:
    local = levels
    if levels:
        deep(levels - 1)
    raise KeyError(local)


def caused() -> None:
    try:
        deep()
    except KeyError as error:
        raise RuntimeError("caused") from error


def during() -> None:
    try:
        deep()
    finally:
        int("x")


def again() -> None:
    raise once


def leave(error: BaseException) -> None:
    raise error


def cancel_itself() -> None:
    handles[-1].cancel()
    raise ValueError("cancelled by itself")


def change_handle() -> None:
    handles[-1]._context = contextvars.copy_context()
    handles[-1]._args = ("changed",)
    raise ValueError("changed")


def stop_iteration() -> None:
    raise StopIteration(3)


def unlucky() -> None:
    raise Unlucky


async def failing_task() -> None:
    await asyncio.sleep(0)
    deep()


def nested() -> None:
    handles[-1]._run()
    raise ValueError("after the nested run")


def told(context: dict[str, Any]) -> None:
    print("told", sorted(context), context["message"])
    error = context.get("exception")
    print("handle", context.get("handle") is (handles[-1] if handles else None), repr(context.get("handle")))
    if error is not None:
        print("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        show_traceback(error.__traceback__)
        print("context", repr(error.__context__), "cause", repr(error.__cause__))
    for entry in context.get("source_traceback", ()):
        print("created", entry.name, entry.lineno)


def show_traceback(step: types.TracebackType | None) -> None:
    while step is not None:
        name = step.tb_frame.f_code.co_name
        # Where a call into C is one instruction, CPython 3.11 and 3.12 go on from within a call into Python.
        instruction = None if name == "_run_once" else step.tb_lasti
        print(name, step.tb_lineno, instruction, sorted(step.tb_frame.f_locals))
        step = step.tb_next


def stop_after(iterations: int) -> None:
    """Not after a time: what a slow machine gets done in it would differ."""
    loop.call_soon(stop_after, iterations - 1) if iterations else loop.stop()


def ran_by(schedule: Any) -> None:
    """Run the loop until what was scheduled is over; print all that comes of it."""
    handles.clear()
    handle = schedule()
    if isinstance(handle, asyncio.Handle):
        handles.append(handle)
    stop_after(5)
    try:
        loop.run_forever()
    except BaseException as error:
        print("left the loop", repr(error))
        print("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        show_traceback(error.__traceback__)
        loop.run_forever()
    for handle in handles:
        context = handle._context
        print("after", type(context).__name__, handle._args, handle.cancelled(), repr(handle))


def ready(handle: asyncio.Handle) -> asyncio.Handle:
    loop._ready.append(handle)  # type: ignore[attr-defined]
    return handle


def entered_already() -> asyncio.Handle:
    context = contextvars.copy_context()
    handle = asyncio.Handle(deep, (), loop, context)

    def inside() -> None:
        context.run(handle._run)

    loop.call_soon(inside)
    return handle


def kept_alive() -> None:
    """What a callback raised with must go when the error goes."""
    thing = Thing()
    alive = weakref.ref(thing)
    loop.call_soon(thing.method)
    del thing
    stop_after(5)
    loop.run_forever()
    print("alive", alive() is not None)
    gc.collect()
    print("alive", alive() is not None)


handles: list[Any] = []
SCENES: dict[str, Any] = {
    "function": lambda: loop.call_soon(deep),
    "arguments": lambda: loop.call_soon(deep, 1),
    "wrong arguments": lambda: loop.call_soon(deep, 1, 2, 3),  # type: ignore[arg-type]
    "timer": lambda: loop.call_later(0, deep),
    "method": lambda: loop.call_soon(Thing().method),
    "callable": lambda: loop.call_soon(Thing()),
    "partial": lambda: loop.call_soon(functools.partial(deep, 0)),
    "builtin": lambda: loop.call_soon(int, "x"),
    "not callable": lambda: ready(asyncio.Handle(3, (), loop)),  # type: ignore[arg-type]
    "arguments in a list": lambda: ready(asyncio.Handle(deep, [0], loop)),
    "no arguments at all": lambda: ready(asyncio.Handle(deep, None, loop)),  # type: ignore[arg-type]
    "caused": lambda: loop.call_soon(caused),
    "during": lambda: loop.call_soon(during),
    "the same error": lambda: loop.call_soon(again),
    "the same error again": lambda: loop.call_soon(again),
    "SystemExit": lambda: loop.call_soon(leave, SystemExit(3)),
    "KeyboardInterrupt": lambda: loop.call_soon(leave, KeyboardInterrupt()),
    "other BaseException": lambda: loop.call_soon(leave, Leaving("away")),
    "GeneratorExit": lambda: loop.call_soon(leave, GeneratorExit()),
    "CancelledError": lambda: loop.call_soon(leave, asyncio.CancelledError()),
    "StopIteration": lambda: loop.call_soon(stop_iteration),
    "an error that cannot be made": lambda: loop.call_soon(unlucky),
    "cancels itself": lambda: loop.call_soon(cancel_itself),
    "changes its handle": lambda: loop.call_soon(change_handle),
    "runs itself": lambda: loop.call_soon(nested),
    "task": lambda: loop.create_task(failing_task()),
    "context entered already": entered_already,
    "own context": lambda: ready(asyncio.Handle(deep, (0,), loop, OwnContext())),  # type: ignore[arg-type]
    "no context": lambda: ready(asyncio.Handle(deep, (0,), loop, 3)),  # type: ignore[arg-type]
    "subclass": lambda: ready(Overriding(deep, (), loop, contextvars.copy_context())),
    "subclass with a property": lambda: ready(Shadowing(contextvars.copy_context())),
}


def every_scene() -> None:
    for name, schedule in SCENES.items():
        print("==", name)
        ran_by(schedule)
        gc.collect()  # an error that nobody asked for is told when its task goes: now


gc.disable()
loop.set_exception_handler(lambda _, context: told(context))
every_scene()
loop.set_debug(True)
loop.slow_callback_duration = 3600
every_scene()
loop.slow_callback_duration = -1
print("== slow")
ran_by(lambda: loop.call_soon(deep))
loop.set_debug(False)
loop.set_exception_handler(None)
kept_alive()
loop.call_soon(deep)
loop.set_exception_handler(lambda _, context: deep(0))
stop_after(5)
loop.run_forever()
loop.close()
