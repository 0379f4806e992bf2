"""Loops that the pulse measures: which they are, what runs them, and what handler a stack of theirs is in."""

from __future__ import annotations

import sys
from os import getpid
from time import monotonic_ns

from . import layout, slots
from .loop_state import ExactLoop, Undeclared
from .stacks import handler_code, outermost, walk

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Optional

    from .stacks import Stack

# Whose loop a wait belongs to, by the object that makes it or by a frame below it.
_BY_OBJECT = (("/uvloop/", "uvloop"), ("/gevent/", "gevent"))
_BY_FRAME = (
    ("/trio/_core/", "trio"),
    ("/gevent/", "gevent"),  # its loop may be libuv's, too
    ("/twisted/internet/", "twisted"),
    ("/asyncio/", "asyncio"),
)
_DECLARED_NS = 1_000_000_000  # asyncio's own loops are declared by the first handler that runs after we came
_RUNNERS = {"twisted": ("mainLoop", "/twisted/internet/base.py"), "gevent": ("run", "/gevent/hub.py")}


def takes_stacks(state: Any) -> bool:
    """Whether the interpreter hands over the stacks of this loop by itself: pending calls run in the main thread."""
    return bool(state.exact and state.tid == getpid())


def is_never_at_rest(state: Any) -> bool:
    """Whether its stack at rest is wanted and has not been met yet. uvloop's loops say in which code they run."""
    return type(state) is Undeclared and state.resting is None and state.kind != "uvloop"


def waits_for_gil(agent: Any, state: Any) -> bool:
    """Whether the loop's thread was last met waiting for the GIL."""
    call = agent.memory.cells[state.cell + layout.L_CALL] if state.exact and state.started else 0
    return bool(call and agent.pulse.names[call - 1] == "gil")


def name_undeclared(agent: Any, now: int, finishing: bool) -> None:
    """Open and close the states of loops that the pulse found by itself, and learn their stacks at rest.

    One of asyncio's has no name for a while, unless there is no time left: its next handler declares it, and what was
    counted moves to its own slot, as long as nobody has read the first one.
    """
    known = {state.loop_at for state in agent.open_loops}
    before, agent.nameless = agent.nameless, {}
    for loop_at, tid, ident, path in agent.pulse.undeclared():
        if loop_at in known:
            continue
        since = before.get(loop_at, now)
        kind = _kind_of(path, walk(sys._current_frames().get(ident)))
        if kind == "asyncio" and now - since < _DECLARED_NS and not finishing:
            agent.nameless[loop_at] = since
        else:
            _open(agent, loop_at, tid, ident, kind)
    for state in list(agent.open_loops):
        if type(state) is Undeclared and not state.running():
            agent.open_loops.remove(state)
            state.files.close()
        elif is_never_at_rest(state):
            state.resting = _stack_at_rest(state)


def handler_on(state: Any, stack: Stack, rest: int = 0) -> Any:
    """Code of the handler that a stack of this loop is in; None without one.

    ``rest``: id of the code in which the loop is run, if that is known.
    """
    known = handler_code(stack)
    if known is not None or type(state) is not Undeclared:
        return known
    for index, (code, _) in enumerate(stack):
        if id(code) == rest or _runs(state.kind, code):
            return outermost(stack[:index])
    if state.kind == "gevent":  # a greenlet's stack ends where the greenlet begins
        return outermost(stack)
    if state.resting is None:
        return None
    below, resting = 0, state.resting
    while below < min(len(stack), len(resting)) and stack[-1 - below][0] is resting[-1 - below][0]:
        below += 1
    return outermost(stack[: len(stack) - below])


def _runs(kind: str, code: Any) -> bool:
    """Whether every handler of such a loop is called from that code."""
    name, file = _RUNNERS.get(kind, ("", ""))
    return bool(name) and code.co_name == name and code.co_filename.endswith(file)


def close_at_exit(agent: Any) -> None:
    """The process ends, in this thread. A hub of gevent's waits for what runs here; of others we do not know that."""
    for state in list(agent.open_loops):
        if type(state) is not Undeclared or state.kind == "gevent":
            agent.close_loop(state, monotonic_ns())


def loop_of(agent: Any, slot_at: int) -> Any:
    """The state of the loop in that slot; of one that had no name yet, what it was declared as. None: not known."""
    known = agent.exact_loops.get(slot_at)
    if known is not None:
        return known
    tid = agent.memory.cells[slot_at // layout.CELL + layout.L_TID]
    return next((state for state in list(agent.open_loops) if state.exact and state.tid == tid), None)


def _open(agent: Any, loop_at: int, tid: int, ident: int, kind: str) -> None:
    state = Undeclared(agent.memory.cells, loop_at, tid, ident)
    state.resting = _stack_at_rest(state)
    state.kind = kind
    slots.name(agent.memory, loop_at, slots.identity_of(state.kind, "", ident, tid))
    agent.open_loops.append(state)
    agent.exact_loops[loop_at] = state
    agent.pauses.install()


def _kind_of(path: str, stack: Stack) -> str:
    for sign, kind in _BY_OBJECT:
        if sign in path:
            return kind
    files = [code.co_filename for code, _ in stack]
    return next((kind for sign, kind in _BY_FRAME if any(sign in file for file in files)), "epoll")


def _stack_at_rest(state: ExactLoop) -> Optional[Stack]:
    """The thread's stack, if it is in the loop's own wait before and after we look."""
    if state.started:
        return None
    stack = walk(sys._current_frames().get(state.ident))
    return stack if stack and not state.started else None
