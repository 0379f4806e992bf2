"""What a test may do to its loop."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from stallscope.gate.policy import Allowance, Policy

if TYPE_CHECKING:
    from stallscope.gate.sites import Place


class Budget(NamedTuple):
    """The longest stall, whether blocking calls are forbidden however fast they are, and what is allowed."""

    max_stall_ns: int | None
    forbids_blocking: bool
    allowances: tuple[Allowance, ...]

    def allows(self, place: Place, today: date) -> bool:
        """Whether a call site is known and accepted."""
        found = Policy(allowances=self.allowances).allowance_for(place, today)
        return found is not None and found.holds(today)
