"""The same code under two names: names that a program makes up as it runs, and lines that moved between two versions.

Workers that were started one after the other may run two versions of a file: the same function stands at another line
there.  One process has one version, so a handler that is defined at one line in some processes and at another in others
has moved, and its blocked lines with it, in their order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from stallscope.analysis.culprits import Blame
from stallscope.analysis.sites import bare
from stallscope.recording.nouns import Handler, Loop, Recording, Stall

_MADE_UP = re.compile(r"0x[0-9a-fA-F]+|\d+")

Handlers = Mapping[Handler, Handler]


def with_settled_names(recording: Recording) -> Recording:
    """The recording with one name for handlers at one line whose names differ in a number alone (``job_17``)."""
    settled = _settled(_handlers(recording))
    if not settled:
        return recording
    return recording._replace(
        handlers=tuple(one._replace(handler=settled.get(one.handler, one.handler)) for one in recording.handlers),
        stalls=tuple(_renamed(stall, settled) for stall in recording.stalls),
    )


def _handlers(recording: Recording) -> set[Handler]:
    found = {one.handler for one in recording.handlers}
    for stall in recording.stalls:
        found.update(one.handler for one in stall.handlers)
        if stall.current is not None:
            found.add(stall.current)
    return found


def _settled(handlers: Iterable[Handler]) -> dict[Handler, Handler]:
    """For each handler of several with one made-up name the one that stands for all."""
    groups: defaultdict[tuple[str, int, str], list[Handler]] = defaultdict(list)
    for one in handlers:
        groups[one.file, one.line, _MADE_UP.sub("*", one.name)].append(one)
    return {
        one: Handler(name, file, line)
        for (file, line, name), several in groups.items()
        if line and len(several) > 1
        for one in several
    }


def _renamed(stall: Stall, settled: Handlers) -> Stall:
    times = tuple(one._replace(handler=settled.get(one.handler, one.handler)) for one in stall.handlers)
    current = stall.current and settled.get(stall.current, stall.current)
    return stall._replace(handlers=times, current=current)


def with_versions_merged(blames: Iterable[Blame], stalls: Sequence[Stall], loops: Iterable[Loop]) -> list[Blame]:
    """The blames, those of one line in several versions of its file as one, at the line of the latest."""
    processes = {loop.id: loop.process_id for loop in loops}
    groups: defaultdict[object, list[Blame]] = defaultdict(list)
    for one in blames:
        handler = one.site.handler
        named = (handler.name, handler.file) if handler and bare(handler.name) != "<lambda>" else handler
        groups[one.site._replace(handler=None, line=0), named].append(one)
    return [one for several in groups.values() for one in _one_version(several, stalls, processes)]


def _one_version(several: list[Blame], stalls: Sequence[Stall], processes: Mapping[int, int]) -> list[Blame]:
    versions: defaultdict[int, list[Blame]] = defaultdict(list)
    for one in several:
        versions[one.site.handler.line if one.site.handler else 0].append(one)
    owners = [{processes.get(stalls[at].loop_id) for one in held for at in one.by_stall} for held in versions.values()]
    apart = sum(map(len, owners)) == len(set().union(*owners))
    if len(versions) < 2 or not apart or len({len(held) for held in versions.values()}) > 1:
        return several
    ordered = sorted(versions.values(), key=lambda held: _latest_ns(held, stalls), reverse=True)
    rows = [sorted(held, key=lambda one: one.site.line) for held in ordered]
    for newest, *older in zip(*rows, strict=True):
        for one in older:
            newest.absorb(one)
    return rows[0]


def _latest_ns(held: Iterable[Blame], stalls: Sequence[Stall]) -> int:
    return max(stalls[at].start_ns for one in held for at in one.by_stall)
