"""Findings: the value at which analysis and report meet.

Times are integers of nanoseconds, shares run from 0 to 1, ``None`` means that the recording cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stallscope.analysis.arrival import Arrival
from stallscope.analysis.ledger import Cause, Slice
from stallscope.analysis.lengths import Lengths
from stallscope.analysis.modes import Modality
from stallscope.recording.nouns import Executor, Handler, HandlerTime, Loop, Missing, Recording, Stack, Stall

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
    culprits: tuple[tuple[int, float], ...] = ()
    """Ranks of the culprits that fill it and their parts of its stall time, heaviest first; empty where no stall of it
    has details."""
    causes: tuple[tuple[Cause, float], ...] = ()
    """The same by cause: all causes of its stalls."""


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
    held: Lengths
    """How long its iterations were, as exactly as is known."""
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
    remedy: str = ""
    """The name of the catalogue's entry."""
    source: str = ""
    """Where its claim is made or can be checked."""
    also: tuple[Advice, ...] = ()
    """What helps besides."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A thread pool for a culprit's calls, in one process, at the rate at which they were seen to stall."""

    wait_ns: int
    """Mean time that a call waits, and so holds a thread."""
    compute_ns: int
    """Mean CPU time of the same function beside it."""
    rate_per_s: float
    most_threads: float | None
    """1 + wait / compute: more would contend for the GIL; None where no compute time was seen."""
    threads: int
    """The fewest with which at most a call in twenty waits for one."""
    utilization: float
    p_queued: float
    """With so many threads the chance that a call waits for one (Erlang C)."""
    mean_queue_ns: int
    """Mean wait for a thread."""
    executor: Executor | None
    """The process's default executor, where these calls would go, as it was seen; None where no look met it."""
    default_threads: int
    """Its threads; where it was not seen the fewest that Python gives it."""
    default_utilization: float
    """Of its threads, by what they do already and by these calls; above 1: its queue would grow without end."""
    default_p_queued: float
    new_queue: bool
    """It would be the new queue."""


@dataclass(frozen=True, slots=True)
class HandlerDelay:
    """What a handler did to the others, and they to it; None where it cannot be known."""

    handler: Handler
    calls: int | None
    """In the whole recording; an estimate where short calls were sampled."""
    own_ns: int
    """The stall time that it took itself."""
    inflicted_ns: int | None
    """Estimated delay of the other handlers' calls behind it, all together."""
    suffered_ns: int | None
    """Estimated delay of its own calls behind others, all together."""
    caught_calls: int
    """Calls of it that were seen in an iteration that another handler stalled."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the times of stalls say: `cadence` (at equal distances) or `coincidence` (in several processes at once)."""

    kind: Literal["cadence", "coincidence"]
    sentence: str
    stalls: int
    """That fit it."""
    of: int
    p: float
    """A bound of the chance that stalls at random do so."""
    period_ns: int | None = None
    culprit: int | None = None
    """Rank, where it is one culprit's cadence."""
    pids: tuple[int, ...] = ()
    """Of a coincidence: the processes."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The loops that stalled, had the culprit's time not passed."""

    p99_ns: int
    """All else as recorded."""
    stall_wall_share: float | None
    """As expected: what is left may come more often."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What is left without these culprits, by rank; without any: as it is."""

    culprits: tuple[int, ...]
    left: WhatIf


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
    ledger: Mapping[Cause, int] = field(default_factory=dict)
    """Its ns by cause: one cause, but for a pile-up."""
    advice: Advice | None = None
    calls: int | None = None
    """How many calls they were, all stalls together; None where they were not counted."""
    calls_per_stall: float = 1.0
    """How many calls each of its stalls is made of: one long call, or many short ones."""
    stalls_ledger: Mapping[Cause, int] = field(default_factory=dict)
    """The ledger of the stalls in which it took any time: what else passed in them."""
    what_if: WhatIf | None = None
    pool: Pool | None = None
    """Where its calls should go to threads."""


@dataclass(frozen=True, slots=True)
class Others:
    """Culprits too small for a row of their own."""

    culprits: int
    ns: int
    share: float
    members: tuple[Culprit, ...] = ()
    """Themselves, without advice: a comparison must not call one gone that has only shrunk."""


@dataclass(frozen=True, slots=True)
class CauseTime:
    """What one cause took of all recorded stalls together."""

    cause: Cause
    ns: int
    share: float
    stalls: int
    """The stalls in which it took any time."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All loops of a recording taken as one: their iterations and their wall time together."""

    loops: int
    wall_ns: int
    iterations: int
    stall_count: int
    stall_ns: int
    percentiles: Percentiles | None
    log2: tuple[Log2Row, ...]
    modality: Modality
    arrival: Arrival | None

    @property
    def stall_wall_share(self) -> float | None:
        """Stall time as a share of wall time; None where that is unknown."""
        return min(1.0, self.stall_ns / self.wall_ns) if self.wall_ns else None


@dataclass(frozen=True, slots=True)
class Removal:
    """What a what-if takes away: culprits by rank, and causes."""

    culprits: tuple[int, ...] = ()
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The recorded iterations replayed without some of their time."""

    removal: Removal
    removed_ns: int
    loops: tuple[LoopFindings, ...]
    """In the order of the findings' own; their wall time is as recorded, as if requests came no faster."""
    totals: Totals
    share_expected: float | None
    """Stall time as a share of wall time, where the truth between `totals` and the next is expected: what a comparison
    scores."""
    share_if_clients_wait: float | None
    """The same if all the time that is gained is filled with more of the same requests, as clients do that wait for an
    answer before they ask again, and do nothing else."""


@dataclass(frozen=True, slots=True)
class StallFindings:
    """One stall: its ledger sums exactly to its duration."""

    stall: Stall
    ledger: Mapping[Cause, int]
    handler: Handler | None
    culprit: int | None
    """Rank of the culprit that took most of it; None when that one is among the others."""
    parts: tuple[Slice, ...] = ()
    """What its ledger is the sum of, heaviest first."""


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
    totals: Totals
    causes: tuple[CauseTime, ...] = ()
    """The ledger of the whole recording, heaviest first: its ns sum to the time of all recorded stalls."""
    gains: tuple[Gain, ...] = ()
    """As it is; without the worst culprit that can be helped; and without all that can be. Empty where none can."""
    delays: tuple[HandlerDelay, ...] = ()
    """Who delayed whom: the handler that inflicted most first."""
    patterns: tuple[Pattern, ...] = ()
    prediction: Prediction | None = None
    """What was asked of `examine` as a what-if."""

    @property
    def wall_ns(self) -> int:
        """From the start of the recording to its end."""
        return max(0, self.recording.ended_ns - self.recording.started_ns)
