"""Which places block: what the gate's first rule compares.

A place is the file relative to the project, the function, the call and the kind of its resource, never the line: an
edit above it must not make it new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from stallscope.analysis.culprits import handler_of
from stallscope.analysis.ledger import Slice, wait_cause
from stallscope.analysis.sites import bare, location, owner, starts_thread
from stallscope.gate.families import family
from stallscope.recording.nouns import Call, CallSite, Frame, Handler, Recording, Stack, Stall

Relative = Callable[[str], str]
"""The path of a file as the project knows it."""

_CALLS = ("blocking-syscall", "lock-wait")
_COMPUTES = ("python-cpu", "native-cpu")
COMPUTING = "computing"
"""Stands for the call of a place that stalls the loop by computing."""

# Python's own locks wait in sem_* and futex.  A mutex is one of a C library's (malloc's, the GIL's own), and where two
# threads meet in it is chance: in one recording of two, on any line.
_CHANCE = ("pthread_mutex_",)


class Place(NamedTuple):
    """Where a blocking call is made, in a way that outlives edits of the file."""

    file: str
    function: str
    call: str
    """Its family (`families`)."""
    kind: str
    """Of its resource; empty when unknown."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place that blocks, with what was seen there in all runs of one side."""

    place: Place
    hits: int
    total_ns: int
    longest_ns: int
    line: int
    call: Call
    stack: Stack
    handler: Handler | None
    in_stalls: bool
    """Whether a stall was seen there, not only calls that were fast."""
    stalls: int = 0
    """Those that were the program's own doing, and half or more of it here."""

    @property
    def computes(self) -> bool:
        """Whether it makes no call: it stalls the loop by computing."""
        return self.place.call == COMPUTING


def site_of(one: CallSite, relative: Relative) -> Site | None:
    """A call site of a recording as the gate knows it; None where its stack tells no place."""
    where = _place_in_code(one.stack, one.call)
    if where is None:
        return None
    place = place_of(where, one.call, relative)
    return Site(place, one.hits, one.total_ns, one.longest_ns, where.line, one.call, one.stack, one.handler, False)


def sites_of(recording: Recording, divided: Sequence[Divided], threshold_ns: int, relative: Relative) -> Sites:
    """Every place of a recording that blocks, or computes so long that a stall is its own doing."""
    found: Sites = {}
    for one in recording.call_sites:
        site = site_of(one, relative)
        if site is not None:
            add(found, site)
    # What the pulse timed is complete: the hits of stalls are among its own, and what samples say of a stall, or of the
    # stack of a call in it, would add mistakes alone.
    timed, complete = set(found), recording.fidelity.level == "pulse"
    for seen in _computing(divided, threshold_ns, relative):
        add(found, seen)
    for seen in _of_stalls(divided, threshold_ns, relative):
        known = found.get(seen.place)
        if known is not None and seen.place in timed:
            longest_ns, stalls = max(known.longest_ns, seen.longest_ns), known.stalls + seen.stalls
            found[seen.place] = replace(known, in_stalls=True, longest_ns=longest_ns, stalls=stalls)
        elif not complete:
            add(found, seen)
    return found


Sites = dict[Place, Site]
Divided = tuple[Stall, Sequence[Slice], int]
"""A stall, its parts, and what of it was its own doing (ns)."""


def add(found: Sites, site: Site) -> None:
    """Add to what is known of the site's place; where it took longest is what is shown of it."""
    known = found.get(site.place)
    if known is None:
        found[site.place] = site
        return
    shown = max(known, site, key=lambda one: one.longest_ns)
    found[site.place] = replace(
        shown,
        hits=known.hits + site.hits,
        total_ns=known.total_ns + site.total_ns,
        in_stalls=known.in_stalls or site.in_stalls,
        stalls=known.stalls + site.stalls,
    )


def place_of(where: Frame, call: Call, relative: Relative) -> Place:
    """The place of a call that the code at `where` makes."""
    kind = call.resource.kind if call.resource else ""
    return Place(relative(where.file), where.function, family(call.name), kind)


def pooled(several: Iterable[Mapping[Place, Site]]) -> Sites:
    """The places of several runs together."""
    found: Sites = {}
    for sites in several:
        for site in sites.values():
            add(found, site)
    return found


def unqualified(place: Place) -> Place:
    """The place by the function's own name: CPython before 3.11 knows no other."""
    return place._replace(function=bare(place.function))


def _computing(divided: Iterable[Divided], threshold_ns: int, relative: Relative) -> Iterator[Site]:
    """One for each stall of which one place computed half or more."""

    def where(part: Slice) -> tuple[Place, Frame] | None:
        at = location(part.stack) if part.cause in _COMPUTES else None
        return None if at is None else (Place(relative(at.file), at.function, COMPUTING, ""), at)

    for stall, parts, own_ns in divided:
        for place, (ns, part, at) in _by_place(parts if own_ns >= threshold_ns else (), where).items():
            if 2 * ns >= own_ns:
                handler = handler_of(stall, part.stack)
                yield Site(place, 1, ns, ns, at.line, Call(COMPUTING), part.stack, handler, True, 1)


def _of_stalls(divided: Iterable[Divided], threshold_ns: int, relative: Relative) -> Iterator[Site]:
    """One for each stall and place; a place that took less than half a threshold of it may be there by chance."""

    def where(part: Slice) -> tuple[Place, Frame] | None:
        if part.call is None or part.cause not in _CALLS:
            return None
        at = _place_in_code(part.stack, part.call)
        return None if at is None else (place_of(at, part.call, relative), at)

    for stall, parts, own_ns in divided:
        for place, (ns, part, at) in _by_place(parts, where).items():
            if 2 * ns >= threshold_ns and part.call is not None:
                handler = handler_of(stall, part.stack)
                stalls = int(own_ns >= threshold_ns and 2 * ns >= own_ns)
                yield Site(place, 1, ns, ns, at.line, part.call, part.stack, handler, True, stalls)


def _by_place(
    parts: Iterable[Slice], where: Callable[[Slice], tuple[Place, Frame] | None]
) -> dict[Place, tuple[int, Slice, Frame]]:
    """What each place took of one stall (ns), and the longest part of it."""
    own: dict[Place, tuple[int, Slice, Frame]] = {}
    for part in parts:
        found = where(part)
        if found is None:
            continue
        place, at = found
        ns, longest, longest_at = own.get(place, (0, part, at))
        shown = (part, at) if part.ns > longest.ns else (longest, longest_at)
        own[place] = (ns + part.ns, *shown)
    return own


def _place_in_code(stack: Stack, call: Call) -> Frame | None:
    """The frame of the user's code, or of a package, that makes a call; None where asyncio does, or a thread starts."""
    owners = (owner(frame.file) for frame in stack)
    first = next((one for one in owners if one not in ("stdlib", "agent")), None)
    if first in (None, "asyncio") or call.name.startswith(_CHANCE):
        return None
    return None if wait_cause(call) == "lock-wait" and starts_thread(stack) else location(stack)
