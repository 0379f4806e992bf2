"""What the foreign formats say about themselves: a recording's frame, and the sentences they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from stallscope.ingest.source import Source
from stallscope.recording.nouns import EVIDENCE, Fidelity, Loop, Missing, Process, Recording, Stall

STALLS_KEPT = 1000
"""The longest stalls are kept in detail; the rest are counted as suppressed."""

UNIX_NS = 10**18
"""A clock that shows more than this counts from 1970 (in 2001 it did); monotonic clocks count from the boot."""

NO_EVIDENCE = 0.1
"""Where this share of all lines could not be read, the report says that it is no evidence."""

NO_HANDLERS = Missing("handlers and stacks", "this source sees the kernel's side only")
NO_CALLS = Missing("calls, resources and culprits", "a histogram alone holds no call")
NO_WALL = Missing("wall time", "this source does not say how long it recorded")
NO_STALLS = Missing("single stalls", "a histogram holds counts, not iterations one by one")
NO_ITERATIONS = Missing("iterations and their modes", "this source lists only what was slow")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def ms(duration_ns: float) -> str:
    return f"{duration_ns / 1e6:,.3g} ms" if duration_ns < 1e9 else f"{duration_ns / 1e6:,.0f} ms"


class Taker(Protocol):
    """A reader of lines, chunk by chunk."""

    unread: int
    """Lines that it could not read so far."""

    def take(self, chunk: bytes, /) -> None: ...


def take_all(reader: Taker, source: Source) -> bool:
    """Give a reader all of a text; returns whether the last line broke off, and could not be read for it."""
    before, chunk = 0, b""
    for chunk in source.chunks():
        before = reader.unread
        reader.take(chunk)
    return reader.unread > before and not chunk.endswith(b"\n")


def unread(count: int, cut: bool = False) -> list[str]:
    """The sentence about lines that could not be read, if there were any; `cut`, the last one since it breaks off."""
    if cut:
        rest = f"; {plural(count - 1, 'other line')} could not be read, and did not count either" if count > 1 else ""
        return [f"the last line breaks off and did not count: the trace was still being written, or was cut{rest}"]
    return [f"{plural(count, 'line')} could not be read and did not count"] if count else []


def damage(bad: int, lines: int) -> list[Missing]:
    """What a trace lacks of whose lines so many could not be read."""
    if bad < NO_EVIDENCE * lines or not bad:
        return []
    unknown = f"{bad:,} of {lines:,} lines could not be read, or were lost"
    return [Missing(EVIDENCE, f"{unknown}: how often the loop stalled cannot be told; record again, with -o FILE")]


def recording_of(
    source: Source,
    form: str,
    threshold_ns: int,
    *,
    loops: Iterable[Loop] = (),
    processes: Iterable[Process] = (),
    stalls: Sequence[Stall] = (),
    missing: Iterable[Missing] = (),
    notes: Iterable[str] = (),
    suppressed: int = 0,
) -> Recording:
    """A recording that spans its loops, processes and stalls, and is incomplete when its file was torn."""
    loops, processes, notes = tuple(loops), tuple(processes), list(notes)
    longest = sorted(stalls, key=lambda stall: -stall.duration_ns)[:STALLS_KEPT]
    if source.torn:
        notes.append(f"{source.torn}: what follows is missing")
    started = [loop.opened_ns for loop in loops] + [stall.start_ns for stall in longest]
    ended = [loop.last_ns for loop in loops] + [stall.start_ns + stall.duration_ns for stall in longest]
    started_ns = min(started, default=0)
    return Recording(
        path=str(source.path),
        source=form,
        threshold_ns=threshold_ns,
        started_ns=started_ns,
        ended_ns=max(ended, default=0),
        fidelity=Fidelity(form, tuple(missing)),
        processes=processes,
        loops=loops,
        stalls=tuple(sorted(longest, key=lambda stall: (stall.start_ns, stall.loop_id))),
        suppressed=suppressed + len(stalls) - len(longest),
        complete=not source.torn,
        notes=tuple(notes),
        started_wall_s=started_ns / 1e9 if started_ns > UNIX_NS else None,
    )


def process_of(number: int, pid: int, program: str, started_ns: int = 0, ended_ns: int | None = None) -> Process:
    return Process(number, pid, 0, program, "", started_ns, ended_ns)


def loop_of(
    number: int, pid: int, kind: str, name: str, opened_ns: int = 0, last_ns: int = 0, *, process: int | None = None
) -> Loop:
    """A loop known by a name, without a histogram, of the process of the same number unless `process` is given."""
    return Loop(number, process or number, pid, pid, kind, name, opened_ns, last_ns, {})
