"""One run as the gate judges it: a recording corrected for the time that others took from its loops.

On a shared machine most long iterations are not the program's doing: its thread was ready and had no CPU.  So a stall
counts by what it did itself: computed, collected garbage, or waited in a call.  Where the only sample of it brought no
CPU time, computing cannot be told from waiting for a CPU, and only calls count.  In recordings of one program with zero
to four others that computed all the time (see `tests.benchmarks.gate`), this left none of the 28 to 114 long
iterations of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from stallscope.analysis.culprits import NOBODYS
from stallscope.analysis.ledger import Cause, Slice, divide
from stallscope.analysis.lengths import Lengths, changed, lengths, merged, quantiles_ns
from stallscope.analysis.sites import starts_thread
from stallscope.errors import TooLittleData
from stallscope.gate.sites import Relative, Sites, sites_of
from stallscope.recording.histogram import middle_ns
from stallscope.recording.nouns import HandlerCounts, Missing, Recording, Span, Stall

_SURE = frozenset({"blocking-syscall", "lock-wait", "gc"})
LOADED = 0.05
"""Of a stall: its thread waited so long for a CPU that the machine must be loaded."""
STEAL = 0.9
"""Of the time off the CPU: with so much run-queue delay all of it is; a sleep that blocks stays under 0.76."""
ENOUGH_CALLS = 200
FAIR_SHARE = 0.02
"""Of the time of all handlers: what takes less is not worth a warning."""
MANY = 64
"""Calls of a handler of which the longest are looked at."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a baseline keeps of a run, besides its call sites."""

    id: str
    """The same for the same recording."""
    level: str
    """Of its fidelity."""
    sees_calls: bool
    """Whether blocking calls are known that were fast, not only those inside stalls."""
    python: str
    """Of its processes, such as ``CPython 3.11.7``."""
    threshold_ns: int
    wall_ns: int
    """Of all loops together; 0 when unknown."""
    iterations: int
    work: int
    """Calls of handlers: the units of work; 0 when unknown."""
    stalls: int
    """Corrected: iterations that were as long as the threshold by their own doing."""
    stall_ns: int
    cpu_ns: int | None = None
    """CPU time of the loops' threads."""
    medians_ns: Mapping[str, int] = field(default_factory=dict)
    """By name: the median call of each handler that took a fair share of the time, in enough calls to say."""
    recorder: str = ""
    """The version of stallscope that recorded; empty when unknown, and for foreign traces."""
    counted: frozenset[str] | None = None
    """The calls that its recorder counts wherever they are made; None when unknown."""
    knows_computing: bool = True
    """Whether places that stall the loop by computing are among its sites; older baseline files lack them."""

    @property
    def counts_calls(self) -> bool:
        """Whether every blocking call was counted, as in a test session, and none drawn."""
        return self.sees_calls and self.level != "pulse"

    @property
    def qualified(self) -> bool:
        """Whether its functions have qualified names: frames have them from CPython 3.11 on."""
        return all(_version(one) >= (3, 11) for one in self.python.split(", "))


@dataclass(frozen=True, slots=True)
class Run:
    """A recording, corrected."""

    facts: Facts
    path: str
    recorded_threshold_ns: int
    sites: Sites
    longest_ns: tuple[int, ...]
    """The corrected stalls, longest first."""
    hung_ns: int
    """The longest that was not over when the recording ended; it is no hiccup."""
    p99_ns: int | None
    handlers: Mapping[str, tuple[int, ...]]
    """By name: the longest calls of each handler, longest first, corrected."""
    uncorrected: int
    """Long iterations that cannot be told from waiting for a CPU, and so do not count."""
    knows_delay: bool
    """Whether the kernel told how long the loop's thread waited for a CPU."""
    missing: tuple[Missing, ...]


def run_of(recording: Recording, threshold_ns: int, relative: Relative) -> Run:
    """A recording as the gate judges it, by a threshold that is its own or higher.

    Raises TooLittleData for a trace of which so much could not be read that it is no evidence.
    """
    if why := recording.fidelity.no_evidence:
        raise TooLittleData(f"{recording.path} holds too little data to judge: {why}.")
    divided = [(stall, divide(stall, recording.threshold_ns)) for stall in recording.stalls]
    own = [(stall, corrected_ns(stall, parts)) for stall, parts in divided]
    held = _held(recording)
    stalls_ns = _stalls_ns(held, own, threshold_ns)
    return Run(
        facts=_facts(recording, threshold_ns, held.iterations, stalls_ns),
        path=recording.path,
        recorded_threshold_ns=recording.threshold_ns,
        sites=sites_of(
            recording,
            [(stall, parts, ns) for (stall, parts), (_, ns) in zip(divided, own, strict=True)],
            threshold_ns,
            relative,
        ),
        longest_ns=stalls_ns,
        hung_ns=max((ns for stall, ns in own if not stall.finished), default=0),
        p99_ns=_p99_ns(held, own),
        handlers=_handlers(recording, own),
        uncorrected=max(0, held.at_least(threshold_ns)[0] - len(stalls_ns)),
        knows_delay=_knows_delay(recording),
        missing=recording.fidelity.missing,
    )


def corrected_ns(stall: Stall, parts: Sequence[Slice]) -> int:
    """What a stall did itself.

    A wait for the GIL counts only where the thread did not wait for a CPU besides: on a loaded machine the GIL's holder
    waits for one too, and may be a thread of ours.  A wait until a new thread runs never counts: it is as long as that
    thread waits for a CPU and the GIL, and `asyncio.to_thread`, the remedy of most stalls, begins with it.
    """
    exact = any(span.cpu_ns is not None for span in stall.spans)
    waited_ns = sum(part.ns for part in parts if part.cause == "descheduled")
    others: frozenset[Cause] = NOBODYS | {"gil-wait"} if waited_ns > LOADED * stall.duration_ns else NOBODYS
    own_ns = sum(part.ns for part in parts if _is_own(part, others, exact))
    return min(own_ns, stall.duration_ns - sum(map(_stolen_ns, stall.spans)))


def _is_own(part: Slice, others: frozenset[Cause], exact: bool) -> bool:
    if part.cause == "lock-wait" and starts_thread(part.stack):
        return False
    return part.cause not in others if exact else part.cause in _SURE


def _stolen_ns(span: Span) -> int:
    """How long the thread was ready to run in a span, and did not.

    A call that was timed exactly holds such time too: a sendto that never waits took 15 ms while four others computed.
    The kernel counts a wait for a CPU when it is over; till then the thread's state tells.
    """
    if span.cpu_ns is None:
        return 0
    off_ns = max(0, span.to_ns - span.from_ns - span.cpu_ns)
    waited_ns = span.run_delay_ns or 0
    return off_ns if span.state == "R" or waited_ns >= STEAL * off_ns else min(waited_ns, off_ns)


def _held(recording: Recording) -> Lengths:
    """The lengths of all iterations; of several loops that foreign tools gave coarse buckets, those of the first."""
    own: dict[int, list[Stall]] = {loop.id: [] for loop in recording.loops}
    for stall in recording.stalls:
        own.setdefault(stall.loop_id, []).append(stall)
    several = [lengths(loop, own[loop.id]) for loop in recording.loops]
    return merged(several) or next((one for one in several if one.iterations), several[0])


def _stalls_ns(held: Lengths, own: Sequence[tuple[Stall, int]], threshold_ns: int) -> tuple[int, ...]:
    """The corrected stalls, longest first.

    Those without details cannot be corrected: as many of them count as of the others.
    """
    long = sorted((ns for _, ns in own if ns >= threshold_ns), reverse=True)
    kept = sum(stall.duration_ns >= threshold_ns for stall, _ in own)
    raw = held.at_least(threshold_ns)[0]
    if not kept:
        return tuple(ns for ns, count in reversed(held.known) for _ in range(count) if ns >= threshold_ns)
    more = round(max(0, raw - kept) * len(long) / kept)
    middle = long[len(long) // 2] if long else 0
    return tuple(sorted([*long, *[middle] * more], reverse=True))


def _facts(recording: Recording, threshold_ns: int, iterations: int, stalls_ns: Sequence[int]) -> Facts:
    walls = [loop.last_ns - loop.opened_ns for loop in recording.loops if loop.counts or loop.coarse]
    mark = (recording.started_ns, recording.ended_ns, recording.threshold_ns, iterations, len(recording.stalls))
    return Facts(
        id=sha256(repr(mark).encode()).hexdigest()[:12],
        level=recording.fidelity.level,
        sees_calls=recording.fidelity.level == "pulse" or bool(recording.call_sites),
        python=", ".join(sorted({one.runtime for one in recording.processes if one.runtime})),
        threshold_ns=threshold_ns,
        wall_ns=sum(walls) if all(wall > 0 for wall in walls) else 0,
        iterations=iterations,
        work=sum(sum(handler.counts.values()) for handler in recording.handlers),
        stalls=len(stalls_ns),
        stall_ns=sum(stalls_ns),
        cpu_ns=_cpu_ns(recording),
        medians_ns=_medians_ns(recording.handlers),
        recorder=recording.recorder,
        counted=recording.counted_calls,
    )


def _cpu_ns(recording: Recording) -> int | None:
    known = [loop.cpu_ns for loop in recording.loops if loop.counts]
    return sum(ns or 0 for ns in known) if known and all(known) else None


def _medians_ns(handlers: Sequence[HandlerCounts]) -> dict[str, int]:
    counts: dict[str, Counter[int]] = {}
    for one in handlers:
        counts.setdefault(one.handler.name, Counter()).update(one.counts)
    known = {name: [(middle_ns(bucket), own[bucket]) for bucket in sorted(own)] for name, own in counts.items()}
    times = {name: sum(ns * count for ns, count in pairs) for name, pairs in known.items()}
    all_ns = sum(times.values())
    return {
        name: quantiles_ns(pairs, (50.0,))[0]
        for name, pairs in sorted(known.items())
        if counts[name].total() >= ENOUGH_CALLS and times[name] >= FAIR_SHARE * all_ns
    }


def _p99_ns(held: Lengths, own: Sequence[tuple[Stall, int]]) -> int | None:
    if not held.iterations:
        return None
    shorter = changed(held, [(stall.duration_ns, max(1, ns)) for stall, ns in own])
    return quantiles_ns(shorter.known, (99.0,))[0]


def _handlers(recording: Recording, own: Sequence[tuple[Stall, int]]) -> dict[str, tuple[int, ...]]:
    """The longest calls of each handler, corrected where a stall that held it alone has details."""
    found: dict[str, list[int]] = {}
    for handler in recording.handlers:
        longest = sorted(_longest(handler), reverse=True)[:MANY]
        found.setdefault(handler.handler.name, []).extend(longest)
    for stall, ns in own:
        for part in stall.handlers:
            stolen_ns = stall.duration_ns - ns
            if part.calls == 1 and part.handler.name in found:
                _replace_nearest(found[part.handler.name], part.total_ns, max(0, part.total_ns - stolen_ns))
    return {name: tuple(sorted(calls, reverse=True)) for name, calls in found.items()}


def _longest(handler: HandlerCounts) -> Iterator[int]:
    for bucket in sorted(handler.counts, reverse=True)[:MANY]:
        yield from [middle_ns(bucket)] * min(MANY, handler.counts[bucket])


def _replace_nearest(calls: list[int], old_ns: int, new_ns: int) -> None:
    """A bucket says a call's length to 3 %."""
    at = min(range(len(calls)), key=lambda index: abs(calls[index] - old_ns), default=None)
    if at is not None and abs(calls[at] - old_ns) <= old_ns * 0.04:
        calls[at] = new_ns


def _knows_delay(recording: Recording) -> bool:
    spans = [span for stall in recording.stalls for span in stall.spans if span.cpu_ns is not None]
    return not spans or any(span.run_delay_ns is not None for span in spans)


def _version(runtime: str) -> tuple[int, ...]:
    digits = runtime.rpartition(" ")[2].split(".")[:2]
    return tuple(int(part) for part in digits if part.isdigit()) or (3, 11)
