"""Stretches of a stall between two looks at its thread."""

from __future__ import annotations

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Optional

    from .stacks import Stack
    from .thread_facts import Facts


class Span:
    """Consecutive samples that look alike; the fields are those of the recording's ``Span``.

    ``answered_ns``: when the stack was taken; of spans that the pulse measured alone.
    """

    __slots__ = (
        "answered_ns",
        "cpu_ns",
        "facts",
        "from_ns",
        "late_ns",
        "run_delay_ns",
        "samples",
        "stack",
        "switches",
        "to_ns",
    )

    def __init__(self, from_ns: int, to_ns: int, stack: Stack, facts: Facts, before: Optional[Facts]) -> None:
        self.from_ns, self.to_ns, self.stack, self.facts = from_ns, to_ns, stack, facts
        self.samples, self.late_ns, self.answered_ns = 1, 0, 0
        self.cpu_ns = difference(facts.cpu_ns, before.cpu_ns if before else None)
        self.run_delay_ns = difference(facts.run_delay_ns, before.run_delay_ns if before else None)
        self.switches = difference(facts.switches, before.switches if before else None)

    def part(self, from_ns: int, to_ns: int) -> "Span":
        """The same from here to there, with all that was counted."""
        part = Span(from_ns, to_ns, self.stack, self.facts, None)
        part.cpu_ns, part.run_delay_ns = self.cpu_ns, self.run_delay_ns
        part.samples, part.switches = self.samples, self.switches
        part.late_ns, part.answered_ns = self.late_ns, self.answered_ns
        return part

    def absorb(self, other: "Span") -> None:
        """Take in the span that follows."""
        self.to_ns = other.to_ns
        self.samples += other.samples
        self.late_ns = max(self.late_ns, other.late_ns)
        self.cpu_ns = _sum(self.cpu_ns, other.cpu_ns)
        self.run_delay_ns = _sum(self.run_delay_ns, other.run_delay_ns)
        self.switches = _sum(self.switches, other.switches)


def difference(now: Optional[int], before: Optional[int]) -> Optional[int]:
    return None if now is None or before is None else now - before


def _sum(one: Optional[int], other: Optional[int]) -> Optional[int]:
    return None if one is None or other is None else one + other
