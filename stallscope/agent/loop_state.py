"""What the agent keeps of one running loop; the hooks write it, the watchdog reads it."""

from __future__ import annotations

from . import layout
from .thread_facts import ThreadFiles

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from .stacks import Stack


_TOLD_MAX = 64


class LoopState:
    """A loop that the agent's own hooks measure."""

    __slots__ = (
        "base", "cell", "cpu_ns", "files", "ident", "last", "loop", "loop_at", "progress", "published", "seen",
        "started", "stopped", "tid", "trail", "zero_waits",
    )  # fmt: skip

    exact = False

    def __init__(
        self, loop_at: int, tid: int, ident: int, loop: Callable[[], Any], files: Optional[ThreadFiles] = None
    ) -> None:
        self.loop = loop  # a weak reference, or what stands in for one
        self.loop_at = loop_at
        self.cell = loop_at // layout.CELL
        self.base = (loop_at + layout.LOOP_HISTOGRAM_AT) // layout.CELL
        self.tid = tid
        self.files = files or ThreadFiles(tid)
        self.ident = ident
        self.seen = 0  # when the watchdog last looked, ns, and
        self.cpu_ns: Optional[int] = None  # the CPU time of the thread at that moment
        self.started = 0  # start of the iteration in progress, ns; 0 while the loop waits
        self.zero_waits = 0  # since the loop opened; the watchdog publishes it
        self.last = 0  # end of the last handler, ns
        self.trail: Optional[Dict[int, Any]] = None  # base -> [calls, ns], while an iteration is overdue
        self.progress: Any = None  # the watchdog's, of the iteration in progress
        self.stopped = 0  # when the watchdog first saw that it does not run any more, ns
        self.published = False  # whether that progress stands in the shared memory

    def running(self) -> bool:
        """Whether the loop runs now; a loop that ended by unusual ways never told us."""
        loop = self.loop()
        return loop is not None and loop._thread_id is not None


class ExactLoop(LoopState):
    """A loop whose iterations the pulse measures: their start stands in the shared memory, and is not ours to set."""

    __slots__ = ("_cells", "_last", "_told", "resting")

    exact = True

    def __init__(
        self,
        cells: Any,
        loop_at: int,
        tid: int,
        ident: int,
        loop: Callable[[], Any],
        files: Optional[ThreadFiles] = None,
    ) -> None:
        self._cells = cells
        self._last = 0
        self._told: Dict[int, Tuple[Any, Any, Any]] = {}  # start of the stall -> its parts, task, handler's code
        self.resting: Optional[Stack] = None  # its stack while it waits: what lies below every handler
        LoopState.__init__(self, loop_at, tid, ident, loop, files)

    @property
    def started(self) -> int:
        """Start of the iteration in progress, ns; 0 while the loop waits."""
        begun: int = self._cells[self.cell + layout.L_STARTED]
        return begun

    @started.setter
    def started(self, value: int) -> None:
        pass

    @property
    def last(self) -> int:
        """End of the last handler, or the start of the iteration, ns."""
        return max(self._last, self.started)

    @last.setter
    def last(self, value: int) -> None:
        self._last = value

    def tell(self, started: int, parts: List[Tuple[int, int, int]], task: Optional[str], handler: Any) -> None:
        """What the loop's own hooks know of a stall, for its report: parts are (base, calls, ns)."""
        if len(self._told) >= _TOLD_MAX:
            self._told.clear()
        self._told[started] = (parts, task, handler)

    def told(self, started: int) -> Tuple[List[Tuple[int, int, int]], Optional[str], Any]:
        """The same, once; nothing where the hooks did not tell."""
        return self._told.pop(started, ([], None, None))


class Undeclared(ExactLoop):
    """A loop known by its waits alone; ``kind`` is what runs it."""

    __slots__ = ("epoch", "kind")

    def __init__(self, cells: Any, loop_at: int, tid: int, ident: int) -> None:
        ExactLoop.__init__(self, cells, loop_at, tid, ident, _nothing)
        self.kind = ""
        self.epoch: int = cells[self.cell + layout.L_EPOCH]

    def running(self) -> bool:
        """Whether the slot is still its own."""
        cells = self._cells
        return bool(cells[self.cell] == layout.LOOP_OPEN and cells[self.cell + layout.L_EPOCH] == self.epoch)


def attribute_of(thing: Any, name: str) -> Any:
    """An attribute of a loop or a selector; None without it.

    Not from its ``__dict__``: to ask for that makes each access to any of its attributes three times slower from then
    on (CPython 3.11 and 3.12 keep the values inline until then), half a microsecond an iteration in all. Nor by
    ``getattr``, which a class may answer as it likes.
    """
    try:
        return object.__getattribute__(thing, name)
    except AttributeError:
        return None


def _nothing() -> None:
    return None
