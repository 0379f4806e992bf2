"""What a project asks of its gate: budgets, and the culprits that it knows and accepts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stallscope.gate.sites import Place

MAX_STALL_NS = 100_000_000


class Budgets(NamedTuple):
    """Absolute limits; None: no limit."""

    max_stall_ns: int | None = MAX_STALL_NS
    stall_share: float | None = None
    """Of wall time, 0 to 1."""
    stalls_per_minute: float | None = None
    p99_ns: int | None = None
    handler_max_ns: Mapping[str, int] = MappingProxyType({})


class Allowance(NamedTuple):
    """Call sites that are known and accepted.

    `pattern` is ``FILE``, ``FILE:FUNCTION``, ``FILE:FUNCTION:CALL`` or ``FILE:FUNCTION:CALL:KIND``, each with ``*``,
    ``?`` and ``[...]`` as in a shell (``*`` stands for ``/`` too).
    """

    pattern: str
    reason: str = ""
    until: date | None = None
    """The last day on which it holds."""

    def covers(self, place: Place) -> bool:
        """Whether a place matches the pattern."""
        parts = self.pattern.split(":")
        return len(parts) <= len(place) and all(
            fnmatchcase(value, part) for part, value in zip(parts, place, strict=False)
        )

    def holds(self, today: date) -> bool:
        """Whether it has not expired."""
        return self.until is None or today <= self.until


class Policy(NamedTuple):
    """All that a project asks of its gate."""

    budgets: Budgets = Budgets()
    allowances: tuple[Allowance, ...] = ()

    def allowance_for(self, place: Place, today: date) -> Allowance | None:
        """The allowance that covers a place: rather one that holds than one that has expired."""
        covering = (one for one in self.allowances if one.covers(place))
        return min(covering, key=lambda one: not one.holds(today), default=None)
