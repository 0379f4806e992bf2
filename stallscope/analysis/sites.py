"""Whose code a frame belongs to, and which frame of a stack the user can change."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, wraps
from itertools import takewhile
from typing import Literal, TypeVar

from stallscope.recording.nouns import Frame, Handler, Stack

T = TypeVar("T")
Owner = Literal["user", "generated", "package", "stdlib", "asyncio", "agent"]

_AGENT = re.compile(r"_stallscope_agent|stallscope/agent/")
_PACKAGE = re.compile(r"/(?:site|dist)-packages/([^/]+?)(?:\.py)?(?:/|$)")
_ASYNCIO = re.compile(r"/asyncio/[^/]+\.py$")
_STDLIB = re.compile(r"^<frozen |/lib(64)?/python3(\.\d+t?)?/|/python3\d+\.zip/")
_GENERATED = re.compile(r"^<")
_COMPREHENSION = re.compile(r"(\.<locals>)?\.?<(listcomp|setcomp|dictcomp|genexpr)>$")
_REMEMBERED = 1 << 14
_LOOP_FUNCTIONS = frozenset({"_run", "_run_once", "run_forever", "run_until_complete"})


def _remembered(function: Callable[[Stack], T]) -> Callable[[Stack], T]:
    """Remembers answers by the stack's identity: a recording holds each stack once, and to hash its forty frames costs
    more than the answer."""
    known: dict[int, tuple[Stack, T]] = {}

    @wraps(function)
    def answer(stack: Stack) -> T:
        found = known.get(id(stack))
        if found is None or found[0] is not stack:
            if len(known) >= _REMEMBERED:
                known.clear()
            found = known[id(stack)] = (stack, function(stack))
        return found[1]

    return answer


@lru_cache(maxsize=4096)
def owner(file: str) -> Owner:
    """Whose code a file is: the user's own unless its path says otherwise."""
    if _AGENT.search(file):
        return "agent"
    if _PACKAGE.search(file):
        return "package"
    if _STDLIB.search(file):
        return "asyncio" if _ASYNCIO.search(file) else "stdlib"
    return "generated" if _GENERATED.search(file) else "user"


def package_of(file: str) -> str | None:
    """The third-party package that a file is of."""
    found = _PACKAGE.search(file)
    return found[1] if found else None


def within_handler(stack: Stack) -> Stack:
    """The frames that the handler itself put on the stack: what lies below the loop's own frames is cut off."""
    inside = tuple(takewhile(lambda frame: not _of_loop(frame), stack))
    return inside or stack


@_remembered
def location(stack: Stack) -> Frame | None:
    """The innermost frame of the user's code; without any, the innermost that is neither asyncio's nor the agent's.

    Code without a file (made by ``exec``, as dataclasses and ``python -c`` do) is nobody's to edit: it is named only
    where there is no other.  A comprehension goes by the name of the function that it stands in.
    """
    inside = within_handler(stack)
    for owners in (("user",), ("generated",), ("package", "stdlib")):
        for at, frame in enumerate(inside):
            if owner(frame.file) in owners:
                return Frame(frame.file, frame.line, _enclosing(inside[at:]))
    return None


def _enclosing(outward: Stack) -> str:
    """The name of the first frame's function, or of the one around it where that is a comprehension."""
    file = outward[0].file
    names = (_COMPREHENSION.sub("", frame.function) for frame in outward if frame.file == file)
    return next(filter(None, names), outward[0].function)


@_remembered
def entry(stack: Stack) -> Frame | None:
    """The outermost frame of the user's code inside the handler: what the loop was asked to run."""
    users = [frame for frame in reversed(within_handler(stack)) if owner(frame.file) in ("user", "generated")]
    return next((frame for frame in users if owner(frame.file) == "user"), next(iter(users), None))


def handler_on(stack: Stack, candidates: tuple[Handler, ...]) -> Handler | None:
    """The first of `candidates` that has a frame on the stack."""
    functions = _functions(stack)
    for handler in candidates:
        if (handler.file, bare(handler.name)) in functions:
            return handler
    return None


@_remembered
def _functions(stack: Stack) -> frozenset[tuple[str, str]]:
    return frozenset((frame.file, bare(frame.function)) for frame in stack)


def starts_thread(stack: Stack) -> bool:
    """Whether the stack ends in `threading.Thread.start`, which waits until the new thread runs."""
    own = takewhile(lambda frame: frame.file.endswith("/threading.py"), stack)
    return any(bare(frame.function) == "start" for frame in own)


@lru_cache(maxsize=4096)
def bare(function: str) -> str:
    """A function's own name: qualified ones come from CPython 3.11 on."""
    return function.rpartition(".")[2]


def _of_loop(frame: Frame) -> bool:
    return owner(frame.file) == "agent" or (owner(frame.file) == "asyncio" and bare(frame.function) in _LOOP_FUNCTIONS)
