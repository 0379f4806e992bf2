"""Who is to blame: the parts of all stalls merged by (handler, location, cause, syscall, resource), ranked by time.

A stall's time is blamed on its parts, never on bare counts of samples: a site sampled often in short stalls weighs no
more than its seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, TypeVar

from stallscope.agent.layout import bounds_ns
from stallscope.analysis.findings import Culprit, Kind, Location, Others, ResourceTime
from stallscope.analysis.ledger import Cause, Slice
from stallscope.analysis.resources import joint_name, plain
from stallscope.analysis.sites import handler_on, location
from stallscope.recording.nouns import Handler, HandlerCounts, HandlerTime, Resource, Stack, Stall

_T = TypeVar("_T")

OWN_ROW = 0.005  # of all stall time: culprits below it are folded into "others"
FEW_SAMPLES = 3
PILE_UP_CALLS = 10
NAMED_HANDLERS = 8
"""A stall names so many handlers, the heaviest; what follows is the sum of lighter ones (``agent.report``)."""
NOT_RUNNING: frozenset[Cause] = frozenset({"descheduled", "suspended"})
"""What the machine did to the loop: no part of a pile-up."""
NOBODYS: frozenset[Cause] = NOT_RUNNING | {"unexplained"}
_UNSURE: frozenset[Cause] = frozenset({"python-cpu", "native-cpu", "import", "unexplained"})
_ONE_LINE: frozenset[Cause] = frozenset({"blocking-syscall", "lock-wait"})


class Site(NamedTuple):
    """What stalls are merged by.  `line` is 0 where the time may be sampled on any line of the function."""

    kind: Kind
    cause: Cause
    handler: Handler | None = None
    file: str = ""
    function: str = ""
    line: int = 0
    syscall: str | None = None


PILE_UP = Site("pile-up", "python-cpu")


@dataclass(slots=True)
class Blame:
    """What is known of one site, summed over stalls; all weights in ns."""

    site: Site
    ns: int = 0
    samples: int = 0
    exact_ns: int = 0
    """Of `ns`: measured, not sampled."""
    calls: int = 0
    """Calls that were timed one by one, or counted and summed."""
    summed_ns: int = 0
    """Of `ns`: short calls, summed."""
    by_stall: Counter[int] = field(default_factory=Counter)
    lines: Counter[int] = field(default_factory=Counter)
    causes: Counter[Cause] = field(default_factory=Counter)
    resources: Counter[Resource] = field(default_factory=Counter)
    stacks: dict[int, tuple[int, Stack]] = field(default_factory=dict)
    """For each line the stack of the longest part (ns first)."""
    details: Counter[str] = field(default_factory=Counter)
    handlers: dict[Handler, HandlerTime] = field(default_factory=dict)

    def add(self, stall: int, part: Slice) -> None:
        """Blames `part` of the stall with that index."""
        self.ns += part.ns
        self.samples += part.samples
        self.exact_ns += 0 if part.samples else part.ns
        self.calls += part.calls
        self.summed_ns += part.ns if part.calls > 1 else 0
        self.by_stall[stall] += part.ns
        self.causes[part.cause] += part.ns
        if part.stack:
            where = location(part.stack)
            line = where.line if where else 0
            self.lines[line] += part.ns
            self.stacks[line] = max(self.stacks.get(line, (0, ())), (part.ns, part.stack), key=itemgetter(0))
        if part.call:
            self.details[part.call.detail] = max(self.details[part.call.detail], part.ns)
            if part.call.resource:
                self.resources[plain(part.call.resource)] += part.ns

    def absorb(self, other: Blame) -> None:
        """Takes in what is known of the same site in an older version of its file, but for its lines."""
        self.ns += other.ns
        self.samples += other.samples
        self.exact_ns += other.exact_ns
        self.calls += other.calls
        self.summed_ns += other.summed_ns
        self.by_stall.update(other.by_stall)
        self.causes.update(other.causes)
        self.resources.update(other.resources)
        self.details |= other.details

    def add_handlers(self, handlers: Iterable[HandlerTime]) -> None:
        """Adds the handlers of one pile-up."""
        for one in handlers:
            old = self.handlers.get(one.handler, HandlerTime(one.handler, 0, 0))
            self.handlers[one.handler] = HandlerTime(one.handler, old.calls + one.calls, old.total_ns + one.total_ns)


def blame(stalls: Sequence[Stall], divided: Sequence[Sequence[Slice]], short: Collection[Handler] = ()) -> list[Blame]:
    """Every site that took time of a stall, in no order; `divided` are the parts of each stall, and `short` the
    handlers that stall by their number (`short_handlers`).

    The index of a stall in `stalls` is what `Blame.by_stall` is keyed by.
    """
    found: dict[Site, Blame] = {}
    for index, (stall, parts) in enumerate(zip(stalls, divided, strict=True)):
        candidates = _candidates(stall)
        sites = [_site(candidates, part) for part in parts]
        piled = _is_pile_up(stall, sites, parts, short)
        for site, part in zip(sites, parts, strict=True):
            key = PILE_UP if piled and site.cause not in NOT_RUNNING else site
            one = found.get(key)
            if one is None:
                one = found[key] = Blame(key)
            one.add(index, part)
        if piled and PILE_UP in found:
            found[PILE_UP].add_handlers(stall.handlers)
    return list(found.values())


def heaviest_first(blames: Iterable[Blame]) -> list[Blame]:
    """In the order of their ranks, which is the same in every run."""
    return sorted(blames, key=lambda one: (-one.ns, _order(one.site)))


def short_handlers(stalls: Iterable[Stall], counted: Iterable[HandlerCounts]) -> frozenset[Handler]:
    """The handlers that took most of stalls in many calls, and of whose calls hardly any was so long by itself: fewer
    than half as many as there were such stalls.  (One that a busy machine held up proves nothing.)"""
    halves: dict[Handler, list[int]] = {}
    for stall in stalls:
        for one in stall.handlers:
            if one.calls >= PILE_UP_CALLS and 2 * one.total_ns > stall.duration_ns:
                halves.setdefault(one.handler, []).append(stall.duration_ns // 2)
    long: Counter[Handler] = Counter()
    known = set()
    for counts in counted:
        if counts.handler in halves:
            known.add(counts.handler)
            least_ns = min(halves[counts.handler])
            long[counts.handler] += sum(n for bucket, n in counts.counts.items() if bounds_ns(bucket)[1] > least_ns)
    return frozenset(handler for handler in known if 2 * long[handler] < len(halves[handler]))


def rank(blames: Sequence[Blame], total_ns: int) -> tuple[list[Culprit], Others | None]:
    """The blamed sites as culprits, those under `OWN_ROW` of `total_ns` folded together; the heaviest has a row."""
    own = [one for one in blames if one.ns >= OWN_ROW * total_ns] or blames[:1]
    rest_ns = sum(one.ns for one in blames[len(own) :])
    ranked = [_culprit(number, one, total_ns) for number, one in enumerate(blames, 1)]
    small = tuple(ranked[len(own) :])
    others = Others(len(small), rest_ns, rest_ns / total_ns, small) if rest_ns else None
    return ranked[: len(own)], others


def handler_of(stall: Stall, stack: Stack = ()) -> Handler | None:
    """The handler that a stack of a stall belongs to; without any sign of one, the stall's heaviest."""
    return _handler(_candidates(stall), stack)


def _candidates(stall: Stall) -> tuple[Handler, ...]:
    timed = tuple(one.handler for one in stall.handlers)
    return timed if stall.current is None else (stall.current, *timed)


def _handler(candidates: tuple[Handler, ...], stack: Stack) -> Handler | None:
    return handler_on(stack, candidates) or next(iter(candidates), None)


def _site(candidates: tuple[Handler, ...], part: Slice) -> Site:
    if part.cause in NOBODYS:
        return Site("site", part.cause)
    where = location(part.stack)
    handler = _handler(candidates, part.stack)
    syscall = part.call.name if part.call else None
    if where is None:
        return Site("site", part.cause, handler, syscall=syscall)
    line = where.line if part.cause in _ONE_LINE else 0
    return Site("site", part.cause, handler, where.file, where.function, line, syscall)


def _is_pile_up(stall: Stall, sites: Sequence[Site], parts: Sequence[Slice], short: Collection[Handler]) -> bool:
    """Whether many handler calls made most of the stall together, none of them, and no one system call, more than half.

    Handlers are timed exactly, so they outvote the samples of what computes or is unexplained; what blocks may be
    common to them all.  A hundred calls of one handler are a pile-up too, where its calls are short.
    """
    half = (stall.duration_ns - sum(part.ns for part in parts if part.cause in NOT_RUNNING)) / 2
    if sum(one.calls for one in stall.handlers) < PILE_UP_CALLS or sum(one.total_ns for one in stall.handlers) < half:
        return False
    if any(one.total_ns > half for one in stall.handlers[:NAMED_HANDLERS] if one.handler not in short):
        return False
    sums: Counter[Site] = Counter()
    for site, part in zip(sites, parts, strict=True):
        if site.cause not in _UNSURE | NOT_RUNNING:
            sums[site._replace(handler=None)] += part.ns
    return max(sums.values(), default=0) <= half


def _culprit(number: int, one: Blame, total_ns: int) -> Culprit:
    site = one.site
    line = site.line or _heaviest(one.lines) or 0
    handlers = sorted(one.handlers.values(), key=lambda time: (-time.total_ns, time.handler.name))
    resources = sorted(one.resources.items(), key=lambda item: (-item[1], item[0].name))
    nobodys = site.cause in NOBODYS or site.kind != "site"
    return Culprit(
        rank=number,
        kind=site.kind,
        cause=_heaviest(one.causes) or site.cause,
        ns=one.ns,
        share=one.ns / total_ns if total_ns else 0.0,
        stalls=len(one.by_stall),
        longest_ns=max(one.by_stall.values(), default=0),
        syscall=site.syscall,
        detail=_heaviest(one.details) or "",
        resource=None if nobodys else joint_name(one.resources),
        resources=() if nobodys else tuple(ResourceTime(r.name, r.kind, ns) for r, ns in resources),
        handler=site.handler,
        location=Location(site.file, line, site.function) if site.file else None,
        stack=() if nobodys else one.stacks.get(line, (0, ()))[1],
        handlers=tuple(handlers),
        low_confidence=2 * one.exact_ns < one.ns and one.samples < FEW_SAMPLES,
        calls=one.calls if one.calls and 2 * one.exact_ns >= one.ns else None,
        calls_per_stall=one.calls / len(one.by_stall) if 2 * one.summed_ns >= one.ns > 0 else 1.0,
        ledger=dict(one.causes.most_common()),
    )


def _heaviest(weights: Counter[_T]) -> _T | None:
    """The key of most weight; of equals the one that was met first, which is the same in every run."""
    return max(weights, key=lambda key: weights[key]) if weights else None


def _order(site: Site) -> tuple[str, ...]:
    handler = site.handler.name if site.handler else ""
    return (site.kind, site.cause, handler, site.file, site.function, f"{site.line:09}", site.syscall or "")
