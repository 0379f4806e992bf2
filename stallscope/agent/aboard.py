"""The agent itself: what it owns, and how it comes and goes."""

from __future__ import annotations

import atexit
import os
import sys
from _functools import partial  # type: ignore[import-not-found]
from _thread import get_ident, get_native_id
from _weakref import ref
from time import monotonic_ns

from . import exact, layout, text
from .asyncio_hooks import AsyncioHooks
from .handlers import HandlerTable
from .import_watch import no_longer, when_imported
from .leaving import forget_modules
from .loop_state import ExactLoop, LoopState
from .memory import Memory, alive_page, send_memory
from .pauses import Pauses
from .pulse import Pulse, load, main_has_ended
from .slots import LoopSlots
from .thread_facts import StandingFiles
from .trio_hooks import TrioHooks
from .twisted_hooks import TwistedHooks
from .watchdog import Ended, Watchdog

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple


class Agent:
    """Observes this process until ``stop``; an error of its own takes it out, never the program.

    ``config``: ``threshold_ns``, ``socket`` (path of the collector's), ``owner_pid`` (0: not to be seen from here),
    ``follow``; and ``attached``, true in a process that runs already: then the watchdog works at once, until it is
    asked to leave. ``standing`` is for a process that runs loops one after another, thousands of them, in the
    thread that starts the agent, such as a test session: what each costs to come and go is then spent once, and the
    watchdog looks once a threshold as long as nothing is overdue; call sites are not looked for. In an attached
    process ``brought`` are the library's modules that were imported for our sake, ``running`` is the main thread's
    (loop or None, identity, number), ``hand_over`` stands in for the socket, ``rest`` lets the program run between
    two steps of the start, and ``freely`` calls what lets it run by itself.
    """

    _ended_last: Tuple[Optional[LoopState], int] = (None, 0)
    """Of a test session: the state of the loop whose run was the last to end in its thread, and its slot's epoch."""

    def __init__(self, config: Dict[str, Any]) -> None:
        self.config = config
        self.threshold_ns: int = config["threshold_ns"]
        self.quarter_ns = self.threshold_ns // 4
        self.long_ns = min(self.quarter_ns, layout.LONG_NS)
        self.owner_pid: int = config["owner_pid"]
        self.attached: bool = config.get("attached", False)
        self.brought: List[str] = config.get("brought", [])
        self._rest = config.pop("rest", _nothing)
        self._freely = config.pop("freely", _called)
        self._hooks: Optional[AsyncioHooks] = None
        self._library_hooks: List[Any] = []
        self._forked = False  # we came here from a parent that was observed
        self._come_aboard()

    def start(self) -> None:
        """Announce the process and wait for asyncio to be imported."""
        hand_over = self.config.pop("hand_over", None) or partial(send_memory, self.config.get("socket", ""))
        refused = hand_over(self.memory, self._greeting())
        self.memory.close_fd()
        if refused is not None:  # no collector: stay out of the way
            self.alive[0] = 0
            return
        atexit.register(self._at_exit)
        when_imported("asyncio.base_events", self._hook)
        if self.config.get("pulse"):
            for library in _LOOP_LIBRARIES:
                when_imported(library, self._library_imported)
            when_imported("twisted.internet.base", self._hook_twisted)
        when_imported("trio._core._run", self._hook_trio)
        if self.attached:
            self._rest()
            if self._hooks is not None:
                self._hooks.adopt_running(*self.config.pop("running"))
            self.watchdog.wake()

    def stop(self, why: str = "") -> None:
        """Unhook everything and go quiet. May be called from any thread, and twice."""
        if not self.alive[0]:
            return
        self.alive[0] = 0
        self.watchdog.finish()
        self.memory.put_text(layout.ERROR_AT, layout.ERROR_BYTES, why)
        self._unhook()
        self.memory.cells[layout.H_STATE] = layout.STATE_FINISHED

    def failed(self, error: BaseException) -> None:
        """An exception came up in our own code: take the agent out, let the program go on.

        An exception that a signal handler of the program raised while our code ran is not ours:
        it was raised in a deeper frame, and goes on its way.
        """
        traceback = error.__traceback__
        deepest = traceback
        while deepest is not None and deepest.tb_next is not None:
            deepest = deepest.tb_next
        if deepest is not None and not deepest.tb_frame.f_code.co_filename.startswith(_OWN_DIRECTORY):
            raise error
        if not self.alive[0]:
            return
        self.alive[0] = 0
        where = f" ({os.path.basename(deepest.tb_frame.f_code.co_filename)}:{deepest.tb_lineno})" if deepest else ""
        self.memory.put_text(layout.ERROR_AT, layout.ERROR_BYTES, f"{type(error).__name__}: {error}{where}")
        self.memory.cells[layout.H_STATE] = layout.STATE_DISABLED
        self._unhook()

    def aboard(self) -> bool:
        """Whether this process is observed; a forked child that is to be followed comes aboard here."""
        if self.alive[0]:
            return True
        if _getpid() == self._pid:
            return False
        self.shed()
        if not self.config["follow"]:
            return False
        self._forked = True
        self._come_aboard()
        self.start()
        return bool(self.alive[0])

    def shed(self) -> None:
        """In a forked child: take off what it has inherited."""
        if _getpid() != self._pid and self.pauses is not None:
            self._unhook()
            self.memory.unmap()

    def heartbeat_ns(self) -> int:
        """When the collector was last heard of."""
        heard: int = self.memory.cells[layout.H_HEARTBEAT]
        return heard

    def adopt_in_child(self, loop: Any) -> None:
        """A forked child goes on running a loop of its parent's: observe it too, if children are followed."""
        try:
            if self.aboard() and self._hooks is not None:
                self._hooks.adopt(loop, is_new=True)
        except Exception as error:
            self.failed(error)

    def has_loop(self, tid: int) -> bool:
        """Whether a loop is open in that thread, named or not."""
        found = self.pulse.undeclared() if self.pulse is not None else []
        return tid in [*[state.tid for state in self.open_loops], *[whose for _, whose, _, _ in found]]

    def open_loop(
        self, kind: str, loop: Any, ident: int, tid: int, running: bool, waits_here: bool = True
    ) -> Optional[LoopState]:
        """A slot for a loop that runs in that thread, and waits there if the pulse is to measure it; None when all are
        taken."""
        loop_at = self.slots.take(kind, type(loop).__name__, ident, tid)
        if loop_at is None:
            if self.pulse is None:  # which has slots of its own for such loops, and counts what finds none
                self.memory.cells[layout.H_UNSEEN_LOOPS] += 1
            return None
        cells, cell = self.memory.cells, loop_at // layout.CELL
        cells[cell + layout.L_STATE] = layout.LOOP_OPEN
        cells[cell + layout.L_OPENED] = cells[cell + layout.L_OPENED] or monotonic_ns()
        pulse = self.pulse
        if pulse is not None and main_has_ended():
            pulse.mute()
        standing = self._standing
        files = standing if standing is not None and standing.tid == tid else None
        if waits_here and pulse is not None and pulse.open(loop_at, loop._selector, loop, tid, running):
            state: LoopState = ExactLoop(cells, loop_at, tid, ident, ref(loop), files)
        else:
            state = LoopState(loop_at, tid, ident, ref(loop), files)
            state.zero_waits = cells[cell + layout.L_ZERO_WAITS]
        self._is_open(state)
        self.pauses.install()
        self.watchdog.wake()
        if not state.exact:
            self.hurry()
        return state

    def reopen_loop(self, loop: Any) -> Optional[LoopState]:
        """The state of the loop whose run was the last to end in a test session's thread, for another run; None where
        that is not to be had.

        A test runs its loop five times as a rule, and to open it anew took 30 us of a test's 10 ms.
        """
        (state, epoch), self._ended_last = self._ended_last, (None, 0)
        if state is None or state.loop() is not loop or state.ident != get_ident() or not self.alive[0]:
            return None
        cells, cell = self.memory.cells, state.cell
        if cells[cell + layout.L_STATE] == layout.LOOP_OPEN or cells[cell + layout.L_EPOCH] != epoch:
            return None
        if self.pulse is None or not self.pulse.open(state.loop_at, loop._selector, loop, state.tid, False):
            return None
        cells[cell + layout.L_DRAINED] = 0
        cells[cell + layout.L_STATE] = layout.LOOP_OPEN
        self._is_open(state)
        return state

    def _is_open(self, state: LoopState) -> None:
        if state.exact:
            self.exact_loops[state.loop_at] = state
        self.open_loops.append(state)

    def close_loop(self, state: LoopState, now: int) -> None:
        """The loop's run ended; its last iteration is counted here."""
        begun, state.started = state.started, 0
        if state not in self.open_loops:  # of the process that we were forked from
            return
        self.open_loops.remove(state)
        state.files.close()
        if state.exact:
            self._close_exact(state)
            if state.files is self._standing:
                self._ended_last = state, self.memory.cells[state.cell + layout.L_EPOCH]
        else:
            self._close_measured(state, begun, now)
        if self._forked:  # and may be gone at once: multiprocessing ends its children by os._exit
            self.watchdog.finish()

    def hurry(self) -> None:
        """Let the watchdog look now; it may have been at rest for a while yet."""
        if self.pulse is not None:
            self.pulse.nudge()

    def _close_measured(self, state: LoopState, begun: int, now: int) -> None:
        if begun:
            self.iteration_ended(state, begun, now - begun)
        self.memory.cells[state.cell + layout.L_STARTED] = 0
        self.memory.cells[state.cell + layout.L_ZERO_WAITS] = state.zero_waits
        self.memory.cells[state.cell + layout.L_STATE] = layout.LOOP_CLOSED

    def _close_exact(self, state: LoopState) -> None:
        if state.ident == get_ident():
            if self.pulse is not None:
                self.pulse.close()
            self.memory.cells[state.cell + layout.L_STATE] = layout.LOOP_CLOSED

    def iteration_ended(self, state: LoopState, started: int, spent_ns: int) -> None:
        """An iteration ended that may have been long: count it, and leave it to the watchdog if it is a stall."""
        if spent_ns >= self.threshold_ns:
            progress = state.progress
            if progress is not None and progress.started != started:
                progress = None
            self.watchdog.leave(Ended(state, started, started + spent_ns, state.trail, progress))
        state.trail = state.progress = None
        cells = self.memory.cells
        cells[state.base + layout.bucket_of(spent_ns)] += 1
        if spent_ns >= layout.LONG_NS:
            cells[state.cell + layout.L_LONG] += 1

    def _come_aboard(self) -> None:
        self._pid = _getpid()
        self.memory = Memory(self.threshold_ns)
        self.memory.cells[layout.H_OWNER] = self.owner_pid
        self.alive = alive_page()
        self.handlers = HandlerTable(self.memory)
        self.open_loops: List[LoopState] = []
        self.nameless: Dict[int, int] = {}  # slots of loops that are not named yet, and since when they are known, ns
        self.exact_loops: Dict[int, LoopState] = {}  # by slot: what ran there last, for the stalls that it left
        self.pulse: Optional[Pulse] = None
        self.slots = LoopSlots(self.memory, layout.UNDECLARED if self.config.get("pulse") else layout.LOOPS)
        self._standing = StandingFiles(get_native_id()) if self.config.get("standing") else None
        self.pauses: Any = Pauses(self, self.quarter_ns // 2)
        self.watchdog: Any = Watchdog(self)

    def _begin_pulse(self) -> None:
        """Something that has loops was imported: from now on the pulse is worth its thread."""
        path = self.config.get("pulse")
        if not path or self.pulse is not None or not self.alive[0]:
            return
        pulse = load(path)
        self._rest()
        if pulse is None:
            return
        wants_sites = self._standing is None  # a test session hears of each call by other means
        if self._freely(partial(pulse.start, self.memory.mapping, self.threshold_ns, wants_sites)):
            self.pulse = pulse
            if self._standing is None:
                self.memory.put_record(text.encode({"counts": pulse.names}))
            elif self._standing.tid == get_native_id():
                pulse.enter()  # no test of a session is to be the one that opens files
            no_longer(self._library_imported)
            self.memory.cells[layout.H_PULSE] = 1
            self.watchdog.wake()

    def _library_imported(self) -> None:
        try:
            self._begin_pulse()
        except Exception as error:
            self.failed(error)

    def _hook_trio(self) -> None:
        self._hook_library(TrioHooks)

    def _hook_twisted(self) -> None:
        self._hook_library(TwistedHooks)

    def _hook_library(self, hooks: Any) -> None:
        if not self.alive[0] and _getpid() == self._pid:
            return
        try:
            self._begin_pulse()
            self._library_hooks.append(hooks(self))
        except Exception as error:
            self.failed(error)

    def _hook(self) -> None:
        if not self.alive[0] and _getpid() == self._pid:  # it left while asyncio was being imported
            return
        try:
            self._begin_pulse()
            self._rest()
            if self.pulse is not None:
                self.pulse.know_asyncio()
            self._hooks = AsyncioHooks(self)
            self._hooks.install()
        except Exception as error:
            self.failed(error)

    def _unhook(self) -> None:
        no_longer(self._hook)
        for watch in (self._library_imported, self._hook_twisted, self._hook_trio):
            no_longer(watch)
        for hooks in self._library_hooks:
            hooks.uninstall()
        self._library_hooks = []
        self.memory.spare_descriptors()
        if self._hooks is not None:
            self._hooks.uninstall(self.open_loops)
            self._hooks = None
        if self.pulse is not None:
            self.pulse.stop()
            self.pulse = None
        if self._standing is not None:
            self._standing.let_go()
        self.pauses.uninstall()
        atexit.unregister(self._at_exit)
        if self.attached:
            self._take_everything_along()

    def _take_everything_along(self) -> None:
        """Drop what would stay behind: the cycles broken here would keep the shared memory mapped."""
        self.open_loops.clear()
        self.pauses = self.watchdog = None
        forget_modules(self.brought)

    def _at_exit(self) -> None:
        try:
            if _getpid() == self._pid:
                exact.close_at_exit(self)
                self.stop()
        except Exception as error:
            self.failed(error)

    def _greeting(self) -> str:
        version = ".".join(str(part) for part in sys.version_info[:3])
        runtime = f"{'CPython' if sys.implementation.name == 'cpython' else sys.implementation.name} {version}"
        return text.encode({"pid": self._pid, "parent": os.getppid(), "runtime": runtime})


def _nothing() -> None:
    """No rest."""


def _called(work: Callable[[], Any]) -> Any:
    return work()


_getpid = os.getpid
_LOOP_LIBRARIES = ("gevent", "twisted.internet")  # those that may run without asyncio
_OWN_DIRECTORY = os.path.dirname(__file__) + "/"
