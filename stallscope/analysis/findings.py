"""Findings: the value at which analysis and report meet.

Times are integers of nanoseconds, shares run from 0 to 1, ``None`` means that the recording cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stallscope.analysis.arrival import Arrival
from stallscope.analysis.ledger import Cause
from stallscope.analysis.modes import Modality
from stallscope.recording.nouns import Handler, HandlerTime, Loop, Missing, Recording, Stack, Stall

Kind = Literal["site", "pile-up", "saturation"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Lengths that 50, 90, 99 and 99.9 % of the iterations do not exceed, and the longest."""

    p50_ns: int
    p90_ns: int
    p99_ns: int
    p99_9_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class Log2Row:
    """Iterations of `lo_us` to `hi_us` whole microseconds, both included, as funclatency prints them."""

    lo_us: int
    hi_us: int
    count: int


@dataclass(frozen=True, slots=True)
class ModeCause:
    """What the iterations of one stall mode were doing."""

    mode: int
    """Its number among the loop's modes, from 1 and fastest first."""
    busy_share: float
    """Its part of the loop's busy time."""
    culprit: int | None
    """Rank of the culprit that took most of it; None where no stall of it has details."""
    culprit_share: float
    """That culprit's part of the mode's stall time."""


@dataclass(frozen=True, slots=True)
class LoopFindings:
    """One loop: how long its iterations were and what that means."""

    loop: Loop
    iterations: int
    wall_ns: int
    busy_ns: int
    utilization: float | None
    """Busy time as a share of wall time; None where that is unknown."""
    percentiles: Percentiles | None
    """None without iterations."""
    log2: tuple[Log2Row, ...]
    """From zero to the longest, empty rows included."""
    modality: Modality
    stall_count: int
    stall_ns: int
    arrival: Arrival | None
    """None where the loop's wall time is unknown."""
    zero_wait_share: float | None
    """Waits with a timeout of zero, as a share of the iterations."""
    saturated: bool
    mode_causes: tuple[ModeCause, ...] = ()
    """One for each stall mode."""

    @property
    def stall_wall_share(self) -> float | None:
        """Stall time as a share of wall time; None where that is unknown."""
        return min(1.0, self.stall_ns / self.wall_ns) if self.wall_ns else None


@dataclass(frozen=True, slots=True)
class Location:
    """Where in the user's code the time went: the heaviest line, where several of one function were sampled."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class ResourceTime:
    """One of the resources that a culprit touched, and the stall time that it took."""

    name: str
    kind: str
    ns: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a culprit: in words, and the code to write (may be empty)."""

    summary: str
    code: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The loops that stalled, had the culprit's time not passed: all else as recorded."""

    p99_ns: int
    stall_wall_share: float | None


@dataclass(frozen=True, slots=True)
class Culprit:
    """Stalls merged by (handler, location, cause, syscall, resource); see `Kind` for those that are not a site.

    Time that is nobody's line (``descheduled``, ``suspended``, ``unexplained``) has no handler and no location.
    """

    rank: int
    kind: Kind
    cause: Cause
    ns: int
    share: float
    """Of the time of all recorded stalls."""
    stalls: int
    """The stalls in which it took any time."""
    longest_ns: int
    """The most that it took in one stall."""
    syscall: str | None = None
    detail: str = ""
    """The arguments of the longest call."""
    resource: str | None = None
    """One name, or the common pattern of several."""
    resources: tuple[ResourceTime, ...] = ()
    """Heaviest first."""
    handler: Handler | None = None
    location: Location | None = None
    stack: Stack = ()
    handlers: tuple[HandlerTime, ...] = ()
    """Of a pile-up: the handlers that made it, heaviest first."""
    low_confidence: bool = False
    """Fewer than three samples, and nothing measured exactly."""
    loop_id: int | None = None
    """Of a saturation: the loop."""
    advice: Advice | None = None
    what_if: WhatIf | None = None


@dataclass(frozen=True, slots=True)
class Others:
    """Culprits too small for a row of their own."""

    culprits: int
    ns: int
    share: float


@dataclass(frozen=True, slots=True)
class StallFindings:
    """One stall: its ledger sums exactly to its duration."""

    stall: Stall
    ledger: Mapping[Cause, int]
    handler: Handler | None
    culprit: int | None
    """Rank of the culprit that took most of it; None when that one is among the others."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that analysis has to say about one recording."""

    recording: Recording
    threshold_ns: int
    """That stalls were judged by: the recording's own, or the user's."""
    missing: tuple[Missing, ...]
    """What could not be seen, the recording's own list first."""
    loops: tuple[LoopFindings, ...]
    """The loop with the most stall time first."""
    culprits: tuple[Culprit, ...]
    others: Others | None
    stalls: tuple[StallFindings, ...]
    """Longest first."""

    @property
    def wall_ns(self) -> int:
        """From the start of the recording to its end."""
        return max(0, self.recording.ended_ns - self.recording.started_ns)
