"""Brings a ``.stall`` file back as nouns, or says in one sentence why it cannot."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from stallscope.errors import UnreadableInput
from stallscope.recording import schema
from stallscope.recording.claim import sidecars
from stallscope.recording.nouns import (
    Call,
    CallSite,
    CoarseHistogram,
    Executor,
    Fidelity,
    Frame,
    GcPause,
    Handler,
    HandlerCounts,
    HandlerTime,
    Interval,
    Loop,
    Missing,
    Process,
    Recording,
    Resource,
    Span,
    Stack,
    Stall,
    TimedCall,
)

T = TypeVar("T")
ByStall = defaultdict[int, list[T]]
Stacks = dict[int | None, Stack]
Calls = dict[int, Call]

MAGIC = b"SQLite format 3\0"
INTERVAL_S = 60
"""Fast iterations are kept by the minute, so that no shorter interval holds all of its own."""
BUSY_S = 5.0
"""Patience with a recorder that is just closing the file."""


def read(path: Path, *, intervals: bool = False) -> Recording:
    """Everything in one ``.stall`` file, also while it is being recorded or after a crash.

    The histograms by the minute as well where `intervals` is set: an hour of many loops has thousands of them.
    Raises UnreadableInput for whatever is not a whole recording of this format.
    """
    try:
        _require_database(path)
        with _opened(path) as db, _garbage_collector_resting():
            _require_format(db, path)
            return _recording(db, path, intervals)
    except OSError as error:
        raise UnreadableInput(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (sqlite3.DatabaseError, LookupError, TypeError, ValueError) as error:
        raise UnreadableInput(_damage(path, error)) from error


def _damage(path: Path, error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return f"{path} is locked by another program; close it there and try again"
    # Values that do not fit together are damage too: SQLite has no checksum of its pages.
    why = str(error) if isinstance(error, sqlite3.Error) else "its tables do not fit together"
    return (
        f"{path} is damaged ({why}), probably cut short by a copy or a full disk: copy it again,"
        f" or see what can be saved with: sqlite3 {path} .recover"
    )


def _require_database(path: Path) -> None:
    """Refuse what is plainly something else, before SQLite touches it."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise UnreadableInput(f"{path} does not exist; give the path of a recording (.stall) or a trace") from error
    if stat.S_ISDIR(mode):
        raise UnreadableInput(f"{path} is a directory; give the path of a recording (.stall) or a trace")
    if not stat.S_ISREG(mode):
        raise UnreadableInput(f"{path} is a device or a pipe; copy what it holds into a file and give its path")
    with open(path, "rb") as file:
        head = file.read(len(MAGIC))
    if not head:
        raise UnreadableInput(_nothing_in(path))
    if head != MAGIC:
        raise UnreadableInput(f"{path} is not a recording (.stall) but some other kind of file")


def _nothing_in(path: Path) -> str:
    return f"{path} is empty: its recorder was stopped before it began, or the disk was full; record again"


def _require_format(db: sqlite3.Connection, path: Path) -> None:
    ((application,),) = db.execute("PRAGMA application_id")
    version = _version(db)
    ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master")
    if not tables:
        raise UnreadableInput(_nothing_in(path))
    if application != schema.APPLICATION_ID:
        raise UnreadableInput(f"{path} is an SQLite database of another program, not a recording (.stall)")
    if version > schema.VERSION:
        raise UnreadableInput(
            f"{path} was written by a newer stallscope (format {version}, this one reads {schema.VERSION}): upgrade"
        )


def _version(db: sqlite3.Connection) -> int:
    ((version,),) = db.execute("PRAGMA user_version")
    return int(version)


@contextmanager
def _garbage_collector_resting() -> Iterator[None]:
    """None of the many objects made here is garbage; looking for some takes two fifths of the time."""
    resting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if resting:
            gc.enable()


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one moment of the recording, and leaves the file as it is."""
    try:
        db = _connect(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        with _elsewhere(path) as other:
            yield other
    else:
        with closing(db):
            yield db


@contextmanager
def _elsewhere(path: Path) -> Iterator[sqlite3.Connection]:
    """For a recording cut short that lies where SQLite may not write what it needs beside it.

    "immutable" needs nothing, but ignores the log; so a file with a log is read in a copy.
    """
    logs = [log for log in sidecars(path) if not log.name.endswith("-shm") and log.exists() and log.stat().st_size]
    if not logs:
        with closing(_connect(path, "immutable=1")) as db:
            yield db
        return
    with TemporaryDirectory(prefix="stallscope-") as directory:
        for file in (path, *logs):
            shutil.copyfile(file, Path(directory, file.name))
        with closing(_connect(Path(directory, path.name), "mode=rw")) as db:
            yield db


def _connect(path: Path, options: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _recording(db: sqlite3.Connection, path: Path, intervals: bool) -> Recording:
    columns = "source, threshold_ns, started_ns, started_wall_s, last_ns, ended_ns, suppressed, level"
    source, threshold_ns, started_ns, started_wall_s, last_ns, ended_ns, suppressed, level = db.execute(
        f"SELECT {columns} FROM recording"
    ).fetchone()
    handlers = {row[0]: Handler(*row[1:]) for row in db.execute("SELECT id, name, file, line FROM handler")}
    missing = tuple(Missing(*row) for row in db.execute("SELECT what, why FROM missing ORDER BY id"))
    return Recording(
        path=str(path),
        source=source,
        threshold_ns=threshold_ns,
        started_ns=started_ns,
        ended_ns=last_ns if ended_ns is None else ended_ns,
        fidelity=Fidelity(level, missing),
        processes=tuple(Process(*row) for row in db.execute("SELECT * FROM process ORDER BY id")),
        loops=tuple(_with_intervals(db, _loops(db), started_ns) if intervals else _loops(db)),
        handlers=tuple(_handler_counts(db, handlers)),
        stalls=tuple(_stalls(db, handlers)),
        suppressed=suppressed,
        complete=ended_ns is not None,
        notes=tuple(text for (text,) in db.execute("SELECT text FROM note ORDER BY id")),
        call_sites=tuple(_call_sites(db, handlers)),
        recorder=(recorder := _recorder(db)),
        counted_calls=_counted_calls(db) if recorder else None,
        started_wall_s=started_wall_s or None,
        executors=tuple(_executors(db)),
    )


def _loops(db: sqlite3.Connection) -> Iterator[Loop]:
    counts = _counts(db.execute("SELECT loop, bucket, sum(count) FROM histogram GROUP BY loop, bucket"))
    coarse = _coarse(db)
    query = f"""
        SELECT loop.id, process, pid, tid, kind, name, opened_ns, last_ns, zero_waits,
        {"cpu_ns" if _version(db) >= schema.CPU_SINCE else "NULL"}
        FROM loop JOIN process ON process.id = process ORDER BY loop.id"""
    for loop_id, process_id, pid, tid, kind, name, opened_ns, last_ns, zero_waits, cpu_ns in db.execute(query):
        own, coarser = counts.get(loop_id, {}), coarse.get(loop_id)
        yield Loop(loop_id, process_id, pid, tid, kind, name, opened_ns, last_ns, own, zero_waits, coarser, cpu_ns)


def _with_intervals(db: sqlite3.Connection, loops: Iterable[Loop], started_ns: int) -> Iterator[Loop]:
    query = f"SELECT loop, interval / {INTERVAL_S}, bucket, sum(count) FROM histogram GROUP BY 1, 2, 3"
    by_loop: defaultdict[int, defaultdict[int, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for loop_id, number, bucket, count in db.execute(query):
        by_loop[loop_id][number][bucket] = count
    for loop in loops:
        ends = {number: started_ns + (number + 1) * INTERVAL_S * 1_000_000_000 for number in sorted(by_loop[loop.id])}
        inner = [min(max(end, loop.opened_ns), loop.last_ns) for end in list(ends.values())[:-1]]
        edges = pairwise((loop.opened_ns, *inner, loop.last_ns))
        counts = (by_loop[loop.id][number] for number in ends)
        yield loop._replace(intervals=tuple(Interval(*edge, own) for edge, own in zip(edges, counts, strict=False)))


def _coarse(db: sqlite3.Connection) -> dict[int, CoarseHistogram]:
    buckets: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for loop, *bucket in db.execute("SELECT loop, lo_ns, hi_ns, count FROM coarse_bucket ORDER BY loop, lo_ns"):
        buckets[loop].append((bucket[0], bucket[1], bucket[2]))
    histograms = {}
    for loop, tick_ns, per_octave in db.execute("SELECT loop, tick_ns, per_octave FROM coarse_histogram"):
        lows, highs, counts = zip(*buckets[loop], strict=True)
        histograms[loop] = CoarseHistogram((*lows, highs[-1]), counts, tick_ns, per_octave)
    return histograms


def _handler_counts(db: sqlite3.Connection, handlers: dict[int, Handler]) -> Iterator[HandlerCounts]:
    """Those with a histogram; a handler without one is known by its stalls alone."""
    counts = _counts(db.execute("SELECT handler, bucket, count FROM handler_histogram"))
    for handler_id, process_id in db.execute("SELECT id, process FROM handler ORDER BY id"):
        if handler_id in counts:
            yield HandlerCounts(process_id, handlers[handler_id], counts[handler_id])


def _executors(db: sqlite3.Connection) -> Iterator[Executor]:
    if _version(db) < schema.EXECUTORS_SINCE:
        return
    for process, name, is_default, *seen in db.execute("SELECT * FROM executor ORDER BY process, name, is_default"):
        yield Executor(process, name, bool(is_default), *seen)


def _counts(rows: Iterable[tuple[int, int, int]]) -> dict[int, dict[int, int]]:
    counts: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for owner, bucket, count in rows:
        counts[owner][bucket] = count
    return counts


def _recorder(db: sqlite3.Connection) -> str:
    if _version(db) < schema.RECORDER_SINCE:
        return ""
    return str(db.execute("SELECT recorder FROM recording").fetchone()[0])


def _counted_calls(db: sqlite3.Connection) -> frozenset[str]:
    return frozenset(name for (name,) in db.execute("SELECT name FROM counted_call"))


def _call_sites(db: sqlite3.Connection, handlers: dict[int, Handler]) -> Iterator[CallSite]:
    if _version(db) < schema.CALL_SITES_SINCE:
        return
    stacks, calls = _stacks(db), _calls(db)
    columns = "process, handler, call, stack, hits, total_ns, longest_ns"
    for process_id, handler, call, stack, *totals in db.execute(f"SELECT {columns} FROM call_site ORDER BY id"):
        known = None if handler is None else handlers[handler]
        yield CallSite(process_id, known, calls[call], stacks[stack], *totals)


def _stalls(db: sqlite3.Connection, handlers: dict[int, Handler]) -> Iterator[Stall]:
    stacks, calls = _stacks(db), _calls(db)
    times, spans = _handler_times(db, handlers), _spans(db, stacks, calls)
    timed, pauses = _timed_calls(db, stacks, calls), _pauses(db, stacks)
    for stall_id, loop_id, start_ns, duration_ns, finished, task, current in db.execute(
        "SELECT id, loop, start_ns, duration_ns, finished, task, current FROM stall ORDER BY id"
    ):
        yield Stall(
            loop_id,
            start_ns,
            duration_ns,
            bool(finished),
            task,
            tuple(times.get(stall_id, ())),
            None if current is None else handlers[current],
            tuple(spans.get(stall_id, ())),
            tuple(timed.get(stall_id, ())),
            tuple(pauses.get(stall_id, ())),
        )


def _handler_times(db: sqlite3.Connection, handlers: dict[int, Handler]) -> ByStall[HandlerTime]:
    times: ByStall[HandlerTime] = defaultdict(list)
    for stall, _, handler, calls, total_ns in _details(db, "handler_time"):
        times[stall].append(HandlerTime(handlers[handler], calls, total_ns))
    return times


def _spans(db: sqlite3.Connection, stacks: Stacks, calls: Calls) -> ByStall[Span]:
    spans: ByStall[Span] = defaultdict(list)
    for stall, _, from_ns, to_ns, samples, stack, call, state, cpu_ns, delay_ns, switches, late_ns in _details(
        db, "span"
    ):
        known = None if call is None else calls[call]
        spans[stall].append(
            Span(from_ns, to_ns, samples, stacks[stack], known, state, cpu_ns, delay_ns, switches, late_ns)
        )
    return spans


def _timed_calls(db: sqlite3.Connection, stacks: Stacks, calls: Calls) -> ByStall[TimedCall]:
    timed: ByStall[TimedCall] = defaultdict(list)
    for stall, _, start_ns, duration_ns, call, stack, count in _details(db, "timed_call"):
        timed[stall].append(TimedCall(start_ns, duration_ns, calls[call], stacks[stack], count))
    return timed


def _pauses(db: sqlite3.Connection, stacks: Stacks) -> ByStall[GcPause]:
    pauses: ByStall[GcPause] = defaultdict(list)
    for stall, _, start_ns, duration_ns, generation, stack in _details(db, "gc_pause"):
        pauses[stall].append(GcPause(start_ns, duration_ns, generation, stacks[stack]))
    return pauses


def _details(db: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    return db.execute(f"SELECT * FROM {table} ORDER BY stall, position")


def _stacks(db: sqlite3.Connection) -> Stacks:
    """Stacks by their numbers, and the empty one for NULL."""
    frames = {row[0]: Frame(*row[1:]) for row in db.execute("SELECT id, file, line, function FROM frame")}
    stacks: defaultdict[int, list[Frame]] = defaultdict(list)
    for stack, frame in db.execute("SELECT stack, frame FROM stack_frame ORDER BY stack, position"):
        stacks[stack].append(frames[frame])
    return {None: (), **{stack: tuple(parts) for stack, parts in stacks.items()}}


def _calls(db: sqlite3.Connection) -> Calls:
    calls: Calls = {}
    for call_id, name, kind, resource, detail in db.execute("SELECT * FROM call"):
        calls[call_id] = Call(name, None if kind is None else Resource(kind, resource), detail)
    return calls
