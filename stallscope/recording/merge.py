"""Several recordings as one: workers of one server, or what several tools saw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stallscope.recording.nouns import Fidelity, Recording

SAME_CLOCK_S = 1.0
"""Clocks whose origins are closer are one: those of two machines began when each was started."""


def merged(recordings: Sequence[Recording]) -> Recording:
    """All loops and stalls of one or more recordings, numbered anew; one recording is returned as it is.

    Each keeps its own clock: the merged start and end are the first and the last of all where the times of each overlap
    another's, and otherwise (one counts from 1970, say, and one from its own start) as far apart as the longest lasted.
    The threshold is the highest, since below its own a recording has no stalls.
    """
    if len(recordings) == 1:
        return recordings[0]
    threshold_ns = max(one.threshold_ns for one in recordings)
    numbered = list(_numbered(recordings))
    started_ns, ended_ns = _span(recordings)
    return Recording(
        path=", ".join(one.path for one in recordings),
        source=_common((one.source for one in recordings), "several"),
        threshold_ns=threshold_ns,
        started_ns=started_ns,
        ended_ns=ended_ns,
        fidelity=Fidelity(
            _common((one.fidelity.level for one in recordings), "several"),
            tuple(dict.fromkeys(missing for one in recordings for missing in one.fidelity.missing)),
        ),
        processes=tuple(process for one in numbered for process in one.processes),
        loops=tuple(loop for one in numbered for loop in one.loops),
        handlers=tuple(handler for one in numbered for handler in one.handlers),
        stalls=tuple(stall for one in numbered for stall in one.stalls if stall.duration_ns >= threshold_ns),
        suppressed=sum(one.suppressed for one in recordings),
        complete=all(one.complete for one in recordings),
        notes=tuple(dict.fromkeys(f"{Path(one.path).name}: {note}" for one in recordings for note in one.notes)),
        call_sites=tuple(site for one in numbered for site in one.call_sites),
        recorder=_common((one.recorder for one in recordings), "several"),
        counted_calls=_counted_by_all([one.counted_calls for one in recordings]),
        started_wall_s=_wall_s(recordings, started_ns),
        executors=tuple(pool for one in numbered for pool in one.executors),
    )


def _wall_s(recordings: Sequence[Recording], started_ns: int) -> float | None:
    """The time of day at the merged start, where all have the same clock."""
    origins = [None if one.started_wall_s is None else one.started_wall_s - one.started_ns / 1e9 for one in recordings]
    known = [origin for origin in origins if origin is not None]
    if len(known) < len(origins) or max(known) - min(known) > SAME_CLOCK_S:
        return None
    return known[0] + started_ns / 1e9


def _span(recordings: Iterable[Recording]) -> tuple[int, int]:
    spans = sorted((one.started_ns, one.ended_ns) for one in recordings if one.ended_ns > one.started_ns)
    if not spans:
        return 0, 0
    started_ns, reached_ns = spans[0]
    for began_ns, ended_ns in spans:
        if began_ns > reached_ns:  # a time of which nothing is known would count as watched
            return started_ns, started_ns + max(end - begin for begin, end in spans)
        reached_ns = max(reached_ns, ended_ns)
    return started_ns, reached_ns


def _counted_by_all(several: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
    known = [one for one in several if one is not None]
    return frozenset.intersection(*known) if len(known) == len(several) else None


def _common(words: Iterable[str], otherwise: str) -> str:
    different = set(words)
    return different.pop() if len(different) == 1 else otherwise


def _numbered(recordings: Iterable[Recording]) -> Iterator[Recording]:
    """Each with numbers of processes and loops that none before it has, and its file in the names of its loops."""
    process_base = loop_base = 0
    for one in recordings:
        processes = {process.id: process_base + k for k, process in enumerate(one.processes, 1)}
        loops = {loop.id: loop_base + k for k, loop in enumerate(one.loops, 1)}
        file = Path(one.path).name
        yield one._replace(
            processes=tuple(process._replace(id=processes[process.id]) for process in one.processes),
            loops=tuple(
                loop._replace(id=loops[loop.id], process_id=processes[loop.process_id], name=f"{loop.name} in {file}")
                for loop in one.loops
            ),
            handlers=tuple(part._replace(process_id=processes[part.process_id]) for part in one.handlers),
            stalls=tuple(stall._replace(loop_id=loops[stall.loop_id]) for stall in one.stalls),
            call_sites=tuple(site._replace(process_id=processes[site.process_id]) for site in one.call_sites),
            executors=tuple(pool._replace(process_id=processes[pool.process_id]) for pool in one.executors),
        )
        process_base += len(one.processes)
        loop_base += len(one.loops)
