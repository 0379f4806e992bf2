"""Writes a ``.stall`` file while the target runs; whatever dies, what was committed stays readable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from stallscope import __version__
from stallscope.agent.layout import BUCKETS, bounds_ns
from stallscope.recording.file import File, Value
from stallscope.recording.nouns import (
    Call,
    CallSite,
    CoarseHistogram,
    Executor,
    Frame,
    Handler,
    Missing,
    Span,
    Stack,
    Stall,
)

P = ParamSpec("P")
Id = TypeVar("Id")

COUNT_MAX = 2**48
"""More than any loop turns; so that nonsense counts cannot make sums overflow either."""
SECOND_NS = 1_000_000_000
FINE_SHARE = 4
"""Iterations from a quarter of the threshold on (where sampling begins) are kept by the second."""
COARSE_S = 60
"""The faster ones are kept by the minute."""
HANDLER_COMMITS = 10
"""The handlers' histograms are written in each tenth commit: with twenty busy handlers they are
nine tenths of all rows touched, and would cost more than everything else together."""
PENDING_MAX = 20_000
"""Histogram cells held in memory; more are written before the next commit (about 4 MiB)."""
INTERNED_MAX = 8192
"""Frames, stacks and calls remembered by their ids; one forgotten is merely stored again."""
CALL_SITES_MAX = 4096
"""Call sites kept in a recording: many times what a program has, unless each of its calls names
another resource. Of more it is said that they are missing."""

ADD_COUNTS = (
    "INSERT INTO histogram VALUES (?, ?, ?, ?)"
    " ON CONFLICT (loop, interval, bucket) DO UPDATE SET count = count + excluded.count"
)
ADD_HANDLER_COUNTS = (
    "INSERT INTO handler_histogram VALUES (?, ?, ?)"
    " ON CONFLICT (handler, bucket) DO UPDATE SET count = count + excluded.count"
)
STALL_DETAILS = ("handler_time", "span", "timed_call", "gc_pause")


class Writer:
    """One recording being made. Not thread-safe, but any one thread at a time may use it.

    ``started_ns`` is on the target's monotonic clock, ``started_wall_s`` the same moment in
    seconds since 1970. The constructor raises UnreadableInput when the file cannot be made;
    every other method raises RecordingStopped once writing has become impossible.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str,
        threshold_ns: int,
        started_ns: int,
        started_wall_s: float,
        force: bool = False,
        command: str = "",
    ) -> None:
        self._started_ns = self._last_ns = started_ns
        self._fine = _first_bucket_reaching(threshold_ns // FINE_SHARE)
        self._counts: defaultdict[tuple[int, int, int], int] = defaultdict(int)
        self._handler_counts: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._call_sites: dict[tuple[int, Handler | None, Call, Stack], int] = {}
        self._commits = self._stacks = 0
        self._frame = _interning(self._insert_frame)
        self._stack = _interning(self._insert_stack)
        self._call = _interning(self._insert_call)
        self._handler = _interning(self._insert_handler)
        level = "agent" if source == "stallscope" else source
        row = (source, command, level, threshold_ns, started_ns, started_wall_s, started_ns)
        self._file = File(path, force, row)
        if source == "stallscope":
            self.recorder(__version__)

    def process(self, pid: int, parent_pid: int, program: str, runtime: str, started_ns: int) -> int:
        """Add a process image; returns its row id."""
        self._seen(started_ns)
        row = (None, pid, parent_pid, program, runtime, started_ns, None, "")
        return self._file.insert("process", row)

    def process_ended(self, process_id: int, ended_ns: int, ending: str) -> None:
        """Say when and how a process went (see ``nouns.Process.ending``)."""
        self._seen(ended_ns)
        self._file.execute("UPDATE process SET ended_ns = ?, ending = ? WHERE id = ?", (ended_ns, ending, process_id))

    def loop(self, process_id: int, tid: int, kind: str, name: str, opened_ns: int) -> int:
        """Add an event loop; returns its row id."""
        self._seen(opened_ns)
        return self._file.insert("loop", (None, process_id, tid, kind, name, opened_ns, opened_ns, None, None))

    def loop_seen(self, loop_id: int, last_ns: int, zero_waits: int | None, cpu_ns: int | None = None) -> None:
        """Say that a loop was alive at ``last_ns``, with its totals so far: zero waits, and CPU time if known."""
        self._seen(last_ns)
        totals = "last_ns = ?, zero_waits = ?, cpu_ns = coalesce(?, cpu_ns)"
        self._file.execute(f"UPDATE loop SET {totals} WHERE id = ?", (last_ns, zero_waits, cpu_ns, loop_id))

    def histogram(self, loop_id: int, at_ns: int, counts: Mapping[int, int]) -> None:
        """Add iterations, bucket -> count, that ended around ``at_ns``."""
        self._seen(at_ns)
        second = max(0, at_ns - self._started_ns) // SECOND_NS
        minute = second - second % COARSE_S
        for bucket, count in counts.items():
            self._counts[loop_id, second if bucket >= self._fine else minute, bucket] += count
        self._flush_if_many()

    def coarse(self, loop_id: int, histogram: CoarseHistogram) -> None:
        """Set the histogram of a loop whose source has only coarse buckets."""
        self._file.insert("coarse_histogram", (loop_id, histogram.tick_ns, histogram.per_octave))
        for (lo_ns, hi_ns), count in zip(pairwise(histogram.edges_ns), histogram.counts, strict=True):
            self._file.insert("coarse_bucket", (loop_id, lo_ns, hi_ns, count))

    def handler(self, process_id: int, handler: Handler) -> int:
        """Row id of a handler of a process: the same one whenever it is asked for."""
        return self._handler(process_id, handler)

    def handler_histogram(self, handler_id: int, counts: Mapping[int, int]) -> None:
        """Add calls of a handler, bucket -> count."""
        for bucket, count in counts.items():
            self._handler_counts[handler_id, bucket] += count
        self._flush_if_many()

    def call_site(self, site: CallSite) -> None:
        """Set the totals so far of a place that blocks; the next record of the same place replaces them."""
        key = (site.process_id, site.handler, site.call, site.stack)
        if key not in self._call_sites and len(self._call_sites) == CALL_SITES_MAX:
            self.missing(Missing("some call sites", f"only the first {CALL_SITES_MAX} were kept"))
            return
        row = self._call_sites[key] = self._call_sites.get(key) or self._insert_call_site(site)
        totals = (site.hits, site.total_ns, site.longest_ns)
        self._file.execute("UPDATE call_site SET hits = ?, total_ns = ?, longest_ns = ? WHERE id = ?", (*totals, row))

    def executor(self, seen: Executor) -> None:
        """Set what was seen so far of a thread pool; the next record of the same pool replaces it."""
        row = (seen.process_id, seen.name, int(seen.is_default), seen.most_threads, seen.threads)
        counts = (seen.looks, seen.busy, seen.queued_looks, seen.deepest)
        self._file.execute("INSERT OR REPLACE INTO executor VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, *counts))

    def stall(self, stall: Stall) -> int:
        """Add a stall; returns its row id.

        An unfinished stall is replaced, under the same id, by the next record of the same loop
        and start; one that comes after the finished record is ignored.
        """
        self._seen(stall.start_ns + stall.duration_ns)
        known = self._file.execute(
            "SELECT id, finished FROM stall WHERE loop = ? AND start_ns = ? ORDER BY finished LIMIT 1",
            (stall.loop_id, stall.start_ns),
        ).fetchone()
        if known and known[1] and not stall.finished:
            return int(known[0])
        # Two finished stalls may share a start: foreign traces can have coarse clocks.
        replaced = int(known[0]) if known and not known[1] else None
        if replaced is not None:
            self._delete_stall(replaced)
        return self._insert_stall(replaced, stall)

    def suppressed(self, count_total: int) -> None:
        """Set how many stalls, so far, are in the histograms without their details."""
        self._file.execute("UPDATE recording SET suppressed = ?", (count_total,))

    def missing(self, missing: Missing) -> None:
        """Say what cannot be seen, and why; saying it twice changes nothing."""
        self._file.execute("INSERT OR IGNORE INTO missing (what, why) VALUES (?, ?)", (missing.what, missing.why))

    def level(self, level: str) -> None:
        """Set the fidelity: ``agent`` (what a recording of ours begins with), ``pulse`` …"""
        self._file.execute("UPDATE recording SET level = ?", (level,))

    def recorder(self, version: str) -> None:
        """Set which stallscope measured: a recording of ours begins with this one."""
        self._file.execute("UPDATE recording SET recorder = ?", (version,))

    def counts_calls(self, names: Iterable[str]) -> None:
        """Say that these calls are counted wherever an iteration makes them."""
        for name in names:
            self._file.execute("INSERT OR IGNORE INTO counted_call VALUES (?)", (name,))

    def note(self, text: str) -> None:
        """Add a sentence for the reader; saying it twice changes nothing."""
        self._file.execute("INSERT OR IGNORE INTO note (text) VALUES (?)", (text,))

    def commit(self, now_ns: int | None = None) -> None:
        """Make all so far outlive the recorder; about once a second.

        A recording cut short ends at the latest moment written before its last commit;
        ``now_ns`` adds the present moment to those. The histograms of handlers (and
        nothing else) are written in each tenth commit only.
        """
        self._seen(now_ns or self._last_ns)
        self._file.check_in_place()
        self._add(ADD_COUNTS, self._counts)
        if self._commits % HANDLER_COMMITS == 0:
            self._add(ADD_HANDLER_COUNTS, self._handler_counts)
        self._commits += 1
        self._file.execute("UPDATE recording SET last_ns = ?", (self._last_ns,))
        self._file.commit()

    def close(self, ended_ns: int) -> None:
        """End the recording at ``ended_ns`` and leave one file; a second call does nothing.

        After a RecordingStopped it only lets go of the file, and raises nothing.
        """
        try:
            if not self._file.stopped:
                self._flush()
                self._file.execute("UPDATE recording SET ended_ns = ?", (ended_ns,))
                self.commit(ended_ns)
                self._file.leave_one_file()
        finally:
            self._file.close()

    def _seen(self, at_ns: int) -> None:
        self._last_ns = max(self._last_ns, at_ns)

    def _flush_if_many(self) -> None:
        if len(self._counts) + len(self._handler_counts) > PENDING_MAX:
            self._flush()

    def _flush(self) -> None:
        self._add(ADD_COUNTS, self._counts)
        self._add(ADD_HANDLER_COUNTS, self._handler_counts)

    def _add(self, statement: str, pending: dict[Any, int]) -> None:
        # One statement a bucket in one second, not one in each drain; sorted, so that neighbours
        # in the table are touched together.
        self._file.execute_many(statement, [(*key, min(pending[key], COUNT_MAX)) for key in sorted(pending)])
        pending.clear()

    def _delete_stall(self, stall_id: int) -> None:
        for table in STALL_DETAILS:
            self._file.execute(f"DELETE FROM {table} WHERE stall = ?", (stall_id,))
        self._file.execute("DELETE FROM stall WHERE id = ?", (stall_id,))

    def _insert_stall(self, replaced: int | None, stall: Stall) -> int:
        (process,) = self._file.execute("SELECT process FROM loop WHERE id = ?", (stall.loop_id,)).fetchone()
        current = self._handler(process, stall.current) if stall.current else None
        row = (replaced, stall.loop_id, stall.start_ns, stall.duration_ns, int(stall.finished), stall.task, current)
        stall_id = self._file.insert("stall", row)
        for table, details in zip(STALL_DETAILS, self._details(process, stall), strict=True):
            for position, values in enumerate(details):
                self._file.insert(table, (stall_id, position, *values))
        return stall_id

    def _details(self, process: int, stall: Stall) -> Iterator[Iterator[tuple[Value, ...]]]:
        """The rows of each of STALL_DETAILS, less their keys, in that order."""
        yield ((self._handler(process, part.handler), part.calls, part.total_ns) for part in stall.handlers)
        yield (self._span_values(span) for span in stall.spans)
        yield ((c.start_ns, c.duration_ns, self._call(c.call), self._stack(c.stack), c.calls) for c in stall.calls)
        yield ((p.start_ns, p.duration_ns, p.generation, self._stack(p.stack)) for p in stall.pauses)

    def _span_values(self, span: Span) -> tuple[Value, ...]:
        stack, call = self._stack(span.stack), self._call(span.call) if span.call else None
        counters = (span.cpu_ns, span.run_delay_ns, span.switches, span.late_ns)
        return (span.from_ns, span.to_ns, span.samples, stack, call, span.state, *counters)

    def _insert_frame(self, frame: Frame) -> int:
        return self._file.insert("frame", (None, frame.file, frame.line, frame.function))

    def _insert_stack(self, stack: Stack) -> int | None:
        if not stack:
            return None
        self._stacks += 1
        for position, frame in enumerate(stack):
            self._file.insert("stack_frame", (self._stacks, position, self._frame(frame)))
        return self._stacks

    def _insert_call(self, call: Call) -> int:
        resource = (call.resource.kind, call.resource.name) if call.resource else (None, None)
        return self._file.insert("call", (None, call.name, *resource, call.detail))

    def _insert_call_site(self, site: CallSite) -> int:
        handler = self._handler(site.process_id, site.handler) if site.handler else None
        place = (site.process_id, handler, self._call(site.call), self._stack(site.stack))
        return self._file.insert("call_site", (None, *place, 0, 0, 0))

    def _insert_handler(self, process_id: int, handler: Handler) -> int:
        key = (process_id, handler.name, handler.file, handler.line)
        self._file.execute("INSERT OR IGNORE INTO handler (process, name, file, line) VALUES (?, ?, ?, ?)", key)
        query = "SELECT id FROM handler WHERE process = ? AND name = ? AND file = ? AND line = ?"
        return int(self._file.execute(query, key).fetchone()[0])


def _first_bucket_reaching(duration_ns: int) -> int:
    """The lowest bucket whose upper bound is at or above a duration."""
    return next((bucket for bucket in range(BUCKETS) if bounds_ns(bucket)[1] >= duration_ns), BUCKETS)


def _interning(insert: Callable[P, Id]) -> Callable[P, Id]:
    return cast("Callable[P, Id]", lru_cache(maxsize=INTERNED_MAX)(insert))
