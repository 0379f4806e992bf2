"""Where trio is measured: an instrument in every run.

How runs are found: ``trio._core._run.setup_runner`` is called as a run begins, and is off the stack while it goes on.
The instrument sees every wait and every step of a task, so that handlers are counted exactly; a step begins where the
one before it ended. A guest run's waits are another thread's, and no sign of a loop there; what can stall is the
host's loop, or where that is none of ours, the run itself, as its instrument sees it.

An instrument that leaves takes itself out, in its own thread: trio looks into its tables twice, and would not find
what another thread had removed in between.
"""

from __future__ import annotations

import sys
from _thread import get_ident, get_native_id
from time import monotonic_ns
from types import CoroutineType

from . import handlers, layout

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional


class TrioHooks:
    """Puts the instrument into runs that begin, until ``uninstall``."""

    def __init__(self, agent: Any) -> None:
        modules: Any = sys.modules
        self._module = modules["trio._core._run"]
        self._setup = self._module.setup_runner
        self._ours = _setting_up(agent, self._setup)
        self._module.setup_runner = self._ours

    def uninstall(self) -> None:
        """Restore what is still ours; the instruments notice by themselves."""
        if self._module.setup_runner is self._ours:
            self._module.setup_runner = self._setup
        del self._ours


def _setting_up(agent: Any, setup: Callable[..., Any]) -> Callable[..., Any]:
    def setup_runner(*arguments: Any, **named: Any) -> Any:
        runner = setup(*arguments, **named)
        try:
            if agent.aboard():
                runner.instruments.add_instrument(Runner(agent, runner))
        except Exception as error:
            agent.failed(error)
        return runner

    return setup_runner


class Runner:
    """One run of trio's, as an instrument for trio and as a loop for the agent; it has the name of trio's own class."""

    def __init__(self, agent: Any, runner: Any) -> None:
        self._agent = agent
        self._runner = runner
        self._state: Any = None
        self._trail: Dict[int, List[int]] = {}  # of the iteration in progress: base -> [calls, ns]
        self._longest_ns = 0
        self._longest: Any = None  # the task of its longest step
        self._selector: Any = getattr(runner.io_manager, "_epoll", None)
        self._thread_id: Optional[int] = None

    def before_run(self) -> None:
        """In the run's own thread: the loop begins."""
        if self._selector is not None:
            self._guarded(self._open_guest if self._runner.is_guest else self._open)

    def after_run(self) -> None:
        """The run is over, whatever ended it."""
        self._thread_id = None
        if self._state is not None and self._agent.alive[0]:
            self._guarded(self._close)

    def before_io_wait(self, timeout: float) -> None:
        """An iteration ends."""
        if self._state is not None:
            self._guarded(self._iteration_ends if self._agent.alive[0] else self._leave, timeout)

    def after_io_wait(self, timeout: float) -> None:
        """An iteration begins."""
        state = self._state
        if state is not None and not state.exact and self._agent.alive[0]:
            state.started = state.last = self._agent.memory.cells[state.cell + layout.L_STARTED] = monotonic_ns()

    def after_task_step(self, task: Any) -> None:
        """A handler has ended."""
        if self._state is not None and self._agent.alive[0]:
            self._guarded(self._step_ended, task)

    def _guarded(self, do: Callable[..., None], *arguments: Any) -> None:
        try:
            do(*arguments)
        except Exception as error:
            self._agent.failed(error)

    def _open_guest(self) -> None:
        pulse, tid = self._agent.pulse, get_native_id()
        if pulse is not None:
            pulse.no_loop(self._selector.fileno())
        if not self._agent.has_loop(tid):
            self._open(waits_here=False)

    def _open(self, waits_here: bool = True) -> None:
        self._thread_id = get_ident()
        self._state = state = self._agent.open_loop("trio", self, get_ident(), get_native_id(), True, waits_here)
        if state is not None and not state.exact:
            self.after_io_wait(0.0)

    def _close(self) -> None:
        state, self._state = self._state, None
        self._agent.close_loop(state, monotonic_ns())

    def _leave(self, timeout: float) -> None:
        self._state = None
        self._runner.instruments.remove_instrument(self)

    def _iteration_ends(self, timeout: float) -> None:
        state, agent = self._state, self._agent
        begun = state.started
        spent = monotonic_ns() - begun if begun else 0
        if spent >= agent.threshold_ns:
            self._tell(state, begun)
        if not state.exact and begun:
            state.started = agent.memory.cells[state.cell + layout.L_STARTED] = 0
            state.trail = self._trail
            agent.iteration_ended(state, begun, spent)
            state.zero_waits += timeout <= 0
        self._trail = {}
        self._longest_ns, self._longest = 0, None

    def _tell(self, state: Any, begun: int) -> None:
        """What the report of this stall is to say of its handlers."""
        task, code = self._longest, None
        if task is not None:
            code = handlers.of_coroutine(task.coro)[0]
        name = task.name if task is not None and isinstance(task.name, str) else None
        parts = [(base, calls, total) for base, (calls, total) in self._trail.items()]
        if state.exact:
            state.tell(begun, parts, name and name[:256], code)
        elif state.progress is not None and state.progress.started == begun:
            state.progress.task, state.progress.handler = name and name[:256], code

    def _step_ended(self, task: Any) -> None:
        state, agent = self._state, self._agent
        now = monotonic_ns()
        spent, state.last = now - state.last, now
        coroutine = task.coro
        base = agent.handlers.bases.get(id(coroutine.cr_code)) if type(coroutine) is CoroutineType else None
        if base is None:
            base = agent.handlers.base_of(*handlers.of_coroutine(coroutine))
        agent.memory.cells[base + layout.bucket_of(spent)] += 1
        part = self._trail.setdefault(base, [0, 0])
        part[0] += 1
        part[1] += spent
        if spent > self._longest_ns:
            self._longest_ns, self._longest = spent, task
