"""What the program knows of one stall: a line of JSON each, times in ns on the monotonic clock."""

from __future__ import annotations

TYPE_CHECKING = False  # ``typing`` is for checkers only: imports of the observed program are kept few
if TYPE_CHECKING:
    from typing import Dict, List

SURE_NS = 20_000_000  # twice the threshold: shorter "stalls" (a disk too fast for fsync) are not judged


class Truth:
    """One stall, as the program saw it."""

    __slots__ = (
        "armed_ns", "calls", "cause", "cpu_ns", "end_ns", "entered_ns", "exact", "file", "kind", "left_ns", "lines",
        "nature", "resource", "resumed_ns", "run_delay_ns", "start_ns",
    )  # fmt: skip

    kind: str
    cause: str
    calls: List[str]
    """Any of these may be named; empty: none may."""
    resource: str
    """What the culprit's resource contains; empty: anything will do."""
    file: str
    lines: List[int]
    """First and last that may be named; empty: nobody's line."""
    nature: str
    """What the time of the cause is: ``blocked`` in one call (or stopped), ``waited`` again and again and ran between,
    ``ran``, or ``delayed``: ready, but not running."""
    exact: bool
    """Nothing but the cause goes on between start and end; else nine tenths of it at least."""
    armed_ns: int
    """The iteration before the handler's: it had not begun."""
    entered_ns: int
    start_ns: int
    end_ns: int
    """Around what blocks."""
    left_ns: int
    """With ``entered_ns``: around the handler."""
    resumed_ns: int
    """The iteration after: the handler's had ended."""
    cpu_ns: int
    run_delay_ns: int
    """Of the thread, between start and end."""

    def __init__(self, values: Dict[str, object]) -> None:
        for name in self.__slots__:
            setattr(self, name, values[name])

    def values(self) -> Dict[str, object]:
        """As they are written."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def lasting_ns(self) -> int:
        """How long its own cause lasted at least, whatever else the machine did meanwhile."""
        if self.nature == "ran":
            return self.cpu_ns
        if self.nature == "delayed":
            return self.run_delay_ns
        spent_ns = self.cpu_ns if self.nature == "waited" else 0
        return self.end_ns - self.start_ns - self.run_delay_ns - spent_ns

    @property
    def is_sure(self) -> bool:
        """Whether it has to be found, and to be called what it was meant to be."""
        return self.lasting_ns >= max(SURE_NS, (self.end_ns - self.start_ns) * 3 // 4)
