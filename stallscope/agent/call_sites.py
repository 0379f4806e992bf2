"""The places that make blocking calls inside iterations, however short the calls: for those who gate on new ones."""

from __future__ import annotations

from . import report, text
from .stacks import FrameTable, handler_code

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    from .memory import Memory
    from .pulse import SeenCall

_MAX_SITES = 1024
_DEPTH = 16
_EVERY_NS = 1_000_000_000
_A_LOOK = 4  # records: the program does without the GIL as they are made, and 64 of them took 3 ms


class _Site:
    __slots__ = ("call", "hits", "is_new", "longest_ns", "stack", "total_ns")

    def __init__(self, seen: SeenCall) -> None:
        self.call, self.stack = seen.exact.call, seen.exact.stack
        self.hits = self.total_ns = self.longest_ns = 0
        self.is_new = False

    def add(self, seen: SeenCall) -> None:
        self.hits += seen.weight
        self.total_ns += seen.weight_ns
        self.longest_ns = max(self.longest_ns, seen.exact.duration_ns)
        self.is_new = True


class CallSites:
    """Totals by call, kind of resource and stack; bounded."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._sites: Dict[Tuple[Any, ...], _Site] = {}
        self._published_ns = 0
        self._due: List[_Site] = []

    def add(self, seen: SeenCall) -> None:
        """Count a call whose stack is known, and those that it stands for."""
        name, kind, _, _ = seen.exact.call
        stack = seen.exact.stack[:_DEPTH]
        key = (name, kind, tuple([(id(code), line) for code, line in stack]))
        site = self._sites.get(key)
        if site is None:
            if len(self._sites) >= _MAX_SITES:
                return
            site = self._sites[key] = _Site(seen)
        site.add(seen)

    def publish(self, memory: Memory, now: int) -> None:
        """Put the totals of those that grew into the ring, each at most once a second, and a few at a time."""
        if not self._due and now - self._published_ns >= _EVERY_NS:
            self._published_ns = now
            self._due = [site for site in self._sites.values() if site.is_new]
        for site in self._due[:_A_LOOK]:
            site.is_new = not memory.put_record(self._record(site))
        del self._due[:_A_LOOK]

    def are_due(self) -> bool:
        """Whether the next look is to publish more."""
        return bool(self._due)

    def publish_all(self, memory: Memory) -> None:
        """The same for all of them, as the agent leaves."""
        for site in self._sites.values():
            if site.is_new:
                site.is_new = not memory.put_record(self._record(site))

    def _record(self, site: _Site) -> str:
        table = FrameTable(_DEPTH)
        stack = table.put(site.stack)
        return text.encode(
            {
                "site": list(site.call),
                "handler": report.handler_named(self._agent, handler_code(site.stack)),
                "stack": stack,
                "frames": table.frames,
                "hits": site.hits,
                "total": site.total_ns,
                "longest": site.longest_ns,
            }
        )
