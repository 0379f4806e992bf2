"""Where asyncio is measured: the selector's wait and ``Handle._run``.

An iteration begins when the selector's ``select`` returns and ends when it is entered again.
Within it, one clock reading per handler is enough: a handler begins where the one before it
ended. The two wrappers are the hot path; their arithmetic is ``layout.bucket_of``, inline.

How loops are found: ``BaseEventLoop._set_coroutine_origin_tracking`` is called by
``run_forever`` as it starts and as it ends (CPython 3.8 to 3.14), in the loop's own thread, and
it is off the stack while the loop runs, so that no frame of ours shows in anybody's traceback.
What failed: wrapping ``run_forever`` (a frame in every traceback), and hooking the constructor
(the thread is not known yet, and unclosed loops were kept alive by the cycle through the
selector). A loop that runs by other means (nest_asyncio) is adopted by its first handler.
"""

from __future__ import annotations

import sys
from _thread import get_ident, get_native_id
from _weakref import ref
from time import monotonic_ns
from types import BuiltinFunctionType, CoroutineType, FunctionType, MethodType

from . import handlers, layout, runner
from .loop_state import attribute_of

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Set

    from .loop_state import LoopState


STATE = "_stallscope_state"
_SHIFT = layout.SUB_BITS + 1
_OFFSET = layout.SUB_BUCKETS
_ONE_IN = 16
# The clock's reading, well mixed (Knuth's multiplicative hashing), draws one in 16. Its remainder by a prime did not
# do: handlers may end at almost even distances, and up to a third too many or too few were drawn.
_MIXED, _DRAWN = 0x9E3779B1, 0xF0000000


class AsyncioHooks:
    """Puts the wrappers in, and takes them out again."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._installed = False
        self._pulse: Any = None
        self._unseen: Set[Any] = set()  # references to running loops that found no slot
        self._adopting: Dict[int, object] = {}  # who is at it, by the loop's id

    def install(self) -> None:
        """Hook the classes; asyncio must have been imported."""
        from asyncio.base_events import BaseEventLoop
        from asyncio.events import Handle

        self._loops, self._handles = BaseEventLoop, Handle
        self._track = BaseEventLoop._set_coroutine_origin_tracking  # type: ignore[attr-defined]
        self._run = Handle._run
        self._tracked = _tracking(self, self._track)
        self._ran = self._builtin() or _running(self._agent, self, self._run)
        self._installed = True
        BaseEventLoop._set_coroutine_origin_tracking = self._tracked  # type: ignore[attr-defined]
        Handle._run = self._ran  # type: ignore[assignment, method-assign]

    def uninstall(self, states: List[LoopState]) -> None:
        """Restore what is still ours; a patch laid over ours keeps calling us as a pass-through."""
        if not self._installed:
            return
        self._installed = False
        for state in states:
            state.files.close()
            _take_off(state.loop(), state)
        if self._handles.__dict__.get("_run") is self._ran:
            self._handles._run = self._run  # type: ignore[method-assign]
        if self._loops.__dict__.get("_set_coroutine_origin_tracking") is self._tracked:
            self._loops._set_coroutine_origin_tracking = self._track  # type: ignore[attr-defined]
        if self._pulse is not None:
            self._pulse.functions["runner_off"]()
        del self._ran, self._tracked  # or hooks and wrappers would keep each other, and the shared memory, alive

    def _builtin(self) -> Any:
        """``Handle._run`` as the pulse's builtin; None where there is none, or it will not do."""
        self._pulse = pulse = self._agent.pulse
        if pulse is None or runner.obstacle(pulse.functions, self._run):
            return None
        return runner.put_together(pulse.functions, self._run, self._agent.handlers, self.meet, self._agent.failed)

    def meet(self, loop: Any) -> None:
        """A handler of a loop ran that is not observed in this thread: it is new to us, or we are a forked child."""
        if not self._agent.alive[0]:
            self._agent.adopt_in_child(loop)
        elif ref(loop) not in self._unseen and attribute_of(loop, STATE) is None:
            self.adopt(loop)

    def adopt_running(self, loop: Any, ident: int, tid: int) -> None:
        """Observe the loop if that thread is in the middle of one of its handlers. One that waits is met at its next
        handler: its wait is no part of an iteration."""
        if loop is None or getattr(loop, "_thread_id", None) != ident or _waits(ident):
            return
        self.adopt(loop, ident, tid)
        state = attribute_of(loop, STATE)
        if state is not None and _waits(ident):  # since we looked, by a ``select`` that it had fetched before
            state.started = self._agent.memory.cells[state.cell + layout.L_STARTED] = 0

    def run_failed(self, loop: Any, error: Exception) -> None:
        """After a handler something went wrong: a loop not met before, or an error."""
        try:
            if isinstance(error, AttributeError) and attribute_of(loop, STATE) is None:
                self.meet(loop)
            else:
                self._agent.failed(error)
        except Exception as worse:
            self._agent.failed(worse)

    def run_changes(self, loop: Any) -> None:
        """The loop is about to run, or has just ended its run, or its debug flag was set."""
        state = self._agent.reopen_loop(loop)
        if state is not None:
            object.__setattr__(loop, STATE, state)
            return
        state = attribute_of(loop, STATE)
        if ref(loop) in self._unseen:
            if loop._thread_id is None:  # its run ended
                self._unseen.discard(ref(loop))
        elif state is None:
            self.adopt(loop)
        elif loop._thread_id is None or not self._agent.alive[0]:
            self.release(loop, state)

    def adopt(self, loop: Any, ident: int = 0, tid: int = 0, *, is_new: bool = False) -> None:
        """Observe the loop, which runs in that thread, or is about to; 0 is this one.

        ``is_new``: the process was forked in the middle of an iteration, which is its parent's.

        The thread that brought us meets the loop while its own does: the second one leaves it to the first. A loop that
        was adopted twice had a wrapper around a wrapper, and they called each other without end when the agent left.
        """
        token = object()
        if self._adopting.setdefault(id(loop), token) is not token:
            return
        try:
            if is_new or attribute_of(loop, STATE) is None:
                self._adopt(loop, ident, tid, is_new)
        finally:
            del self._adopting[id(loop)]

    def _adopt(self, loop: Any, ident: int, tid: int, is_new: bool) -> None:
        selector = getattr(loop, "_selector", None)
        if selector is None or not type(selector).__dictoffset__ or not self._agent.aboard():
            return
        running = loop._thread_id is not None and not is_new  # adopted in the middle of an iteration
        state = self._agent.open_loop("asyncio", loop, ident or get_ident(), tid or get_native_id(), running)
        if state is None:
            self._unseen.add(ref(loop))
            return
        object.__setattr__(loop, STATE, state)
        if not state.exact:
            self._measure_waits(state, selector, running)
        if not self._agent.alive[0]:  # the agent left meanwhile
            self._agent.pauses.uninstall()
            state.files.close()
            _take_off(loop, state)

    def _measure_waits(self, state: LoopState, selector: Any, running: bool) -> None:
        if running:
            state.started = state.last = now = monotonic_ns()
            self._agent.memory.cells[state.cell + layout.L_STARTED] = now
        selector.select = _selecting(self._agent, state, selector.select)

    def release(self, loop: Any, state: LoopState) -> None:
        """The loop's run is over: its last iteration ends here; nothing of ours stays on it."""
        _take_off(loop, state)
        if self._agent.alive[0]:
            self._agent.close_loop(state, monotonic_ns())


def _waits(ident: int) -> bool:
    """Whether the innermost loop of that thread is in its selector."""
    frame: Any = sys._current_frames().get(ident)
    while frame is not None and frame.f_code.co_name != "_run":
        if frame.f_code.co_name == "select" and frame.f_code.co_filename.endswith("selectors.py"):
            return True
        frame = frame.f_back
    return False


def _take_off(loop: Any, state: LoopState) -> None:
    """Remove what ``adopt`` put on a loop and its selector, if it is still ours."""
    if loop is None:
        return
    try:
        object.__delattr__(loop, STATE)
    except AttributeError:  # another thread was first: the loop's own ends its run, or adopts it, as the agent leaves
        pass
    if not state.exact and getattr(attribute_of(loop._selector, "select"), STATE, None) is state:
        del loop._selector.select


def _tracking(hooks: AsyncioHooks, track: Callable[[Any, bool], None]) -> Callable[[Any, bool], None]:
    def _set_coroutine_origin_tracking(self: Any, enabled: bool) -> None:
        track(self, enabled)
        try:
            hooks.run_changes(self)
        except Exception as error:
            hooks._agent.failed(error)

    return _set_coroutine_origin_tracking


def _selecting(agent: Any, state: LoopState, select: Callable[[Any], Any]) -> Callable[..., Any]:
    """The selector's ``select``, timed: the iteration ends at its entry, the next begins at its return."""
    alive, cells, clock, long = agent.alive, agent.memory.cells, monotonic_ns, agent.long_ns
    started_cell = state.cell + layout.L_STARTED
    base = state.base - _OFFSET

    def observed_select(timeout: Any = None) -> Any:
        if not alive[0]:
            return _passed_on(agent, state, select, timeout)
        try:
            begun = state.started
            if begun:
                spent = clock() - begun
                state.started = cells[started_cell] = 0
                if spent >= long:
                    agent.iteration_ended(state, begun, spent)
                else:
                    shift = spent.bit_length() - _SHIFT
                    cells[base + (shift << 5) + (spent >> shift) if shift >= 0 else base + _OFFSET] += 1
            if timeout == 0:
                state.zero_waits += 1
        except Exception as error:
            agent.failed(error)
        events = select(timeout)
        state.started = state.last = now = clock()
        if alive[0]:
            cells[started_cell] = now
        return events

    setattr(observed_select, STATE, state)
    return observed_select


def _passed_on(agent: Any, state: LoopState, select: Callable[[Any], Any], timeout: Any) -> Any:
    """The wait of a loop that is not observed now: the agent left, or we are a child forked by a handler."""
    loop = state.loop()
    if loop is not None:
        before = attribute_of(loop, STATE)
        agent.adopt_in_child(loop)
        adopted = attribute_of(loop, STATE)
        if adopted is not None and adopted is not before:
            adopted.started = 0  # the iteration that ends here was its parent's
            return loop._selector.select(timeout)
    return select(timeout)


def _running(agent: Any, hooks: AsyncioHooks, run: Callable[[Any], None]) -> Callable[[Any], None]:
    """``Handle._run``, timed, under the identity of what it called.

    To find out who it was costs as much as all the rest. Calls under a 64th of the threshold are
    therefore identified one time in ``_ONE_IN`` and counted that many times; every longer call,
    and every call of an overdue iteration, is counted exactly. The draw is the clock's own
    noise: a counter would fall into step with handlers that take turns.
    """
    alive, clock, floor = agent.alive, monotonic_ns, agent.threshold_ns // 64
    note = _noting(agent)

    def _run(self: Any) -> None:
        run(self)
        if not alive[0]:
            if agent.pulse is not None:  # no wait of ours tells that we are a child forked by a handler
                agent.adopt_in_child(self._loop)
            return
        try:
            state = self._loop._stallscope_state
            now = clock()
            spent = now - state.last
            state.last = now
            if spent >= floor or state.trail is not None:
                note(self._callback, spent, 1, state.trail)
            elif not now * _MIXED & _DRAWN:
                note(self._callback, spent, _ONE_IN, None)
        except Exception as error:
            hooks.run_failed(self._loop, error)

    return _run


def _noting(agent: Any) -> Callable[[Any, int, int, Any], None]:
    """Counts one call: the callback, its duration in ns, how many it stands for, the iteration's trail."""
    from asyncio.tasks import Task

    cells, table = agent.memory.cells, agent.handlers
    bases, get_coro, bucket_of = table.bases, Task.get_coro, layout.bucket_of
    steps = {BuiltinFunctionType}  # and asyncio's own C types, as they are met: they have no public name

    def note(callback: Any, spent: int, weight: int, trail: Any) -> None:
        kind = type(callback)
        key: Any = None
        if kind in steps:
            task = callback.__self__
            if isinstance(task, Task):
                coroutine = get_coro(task)
                key = id(coroutine.cr_code) if type(coroutine) is CoroutineType else id(type(coroutine))
        elif kind is MethodType:
            key = callback.__func__
            key = id(key.__code__) if type(key) is FunctionType else None
        elif kind is FunctionType:
            key = id(callback.__code__)
        base = bases.get(key)
        if base is None:
            if handlers.type_name(kind) in handlers.STEP_TYPES:
                steps.add(kind)
            base = handlers.base_of(table, callback, Task if kind in steps else None)
        cells[base + bucket_of(spent)] += weight
        if trail is not None:
            part = trail.setdefault(base, [0, 0])
            part[0] += 1
            part[1] += spent

    return note
