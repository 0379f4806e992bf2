"""Loops that the pulse measures: which they are, what runs them, and what handler a stack of theirs is in."""

from __future__ import annotations

import sys
from os import getpid

from . import layout, slots
from .loop_state import ExactLoop, Undeclared
from .stacks import handler_code, walk

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Optional

    from .stacks import Stack

# Whose loop a wait belongs to, by the object that makes it or by a frame below it.
_BY_OBJECT = (("/uvloop/", "uvloop"), ("/gevent/", "gevent"))
_BY_FRAME = (
    ("/trio/_core/", "trio"),
    ("/gevent/", "gevent"),
    ("/twisted/internet/", "twisted"),
    ("/asyncio/", "asyncio"),
)


def takes_stacks(state: Any) -> bool:
    """Whether the interpreter hands over the stacks of this loop by itself: pending calls run in the main thread."""
    return bool(state.exact and state.tid == getpid())


def waits_for_gil(agent: Any, state: Any) -> bool:
    """Whether the loop's thread was last met waiting for the GIL."""
    call = agent.memory.cells[state.cell + layout.L_CALL] if state.exact and state.started else 0
    return bool(call and agent.pulse.names[call - 1] == "gil")


def name_undeclared(agent: Any) -> None:
    """Open and close the states of loops that the pulse found by itself, and learn their stacks at rest."""
    known = {state.loop_at for state in agent.open_loops}
    for loop_at, tid, path in agent.pulse.undeclared():
        if loop_at not in known:
            _open(agent, loop_at, tid, path)
    for state in list(agent.open_loops):
        if type(state) is Undeclared and not state.running():
            agent.open_loops.remove(state)
            state.files.close()
        elif state.exact and state.resting is None:
            state.resting = _stack_at_rest(state)


def handler_on(state: Any, stack: Stack) -> Any:
    """Code of the handler that a stack of this loop (None: it has closed) is in; None without one."""
    known = handler_code(stack)
    if known is not None or type(state) is not Undeclared or state.resting is None:
        return known
    resting = state.resting
    below = 0
    while below < min(len(stack), len(resting)) and stack[-1 - below][0] is resting[-1 - below][0]:
        below += 1
    above = stack[: len(stack) - below]
    return above[-1][0] if above else None


def _open(agent: Any, loop_at: int, tid: int, path: str) -> None:
    ident = _ident_of(tid)
    state = Undeclared(agent.memory.cells, loop_at, tid, ident)
    state.resting = _stack_at_rest(state)
    kind = _kind_of(path, walk(sys._current_frames().get(ident)))
    slots.name(agent.memory, loop_at, slots.identity_of(kind, "", ident, tid))
    agent.open_loops.append(state)
    agent.pauses.install()


def _kind_of(path: str, stack: Stack) -> str:
    for sign, kind in _BY_OBJECT:
        if sign in path:
            return kind
    files = [code.co_filename for code, _ in stack]
    return next((kind for sign, kind in _BY_FRAME if any(sign in file for file in files)), "epoll")


def _ident_of(tid: int) -> int:
    """CPython's identity of a kernel thread; 0 for one that Python knows nothing of."""
    threading: Any = sys.modules.get("threading")
    for ident, thread in list(threading._active.items()) if threading is not None else []:
        if getattr(thread, "_native_id", None) == tid:
            return int(ident)
    return 0


def _stack_at_rest(state: ExactLoop) -> Optional[Stack]:
    """The thread's stack, if it is in the loop's own wait before and after we look."""
    if state.started:
        return None
    stack = walk(sys._current_frames().get(state.ident))
    return stack if stack and not state.started else None
