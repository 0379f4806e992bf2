"""The agent and its collector, both in the process that runs the tests.

A test must fail in its own report, so what its loops did must be known when it ends.  Hence the collector is no
process of its own here but a thread, and what the loops' histograms hold is read where the agent writes it.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import start_new_thread
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from stallscope import agent
from stallscope.agent import layout
from stallscope.collect.collector import DRAIN_S, Collector
from stallscope.errors import NotObservable
from stallscope.recording.nouns import CallSite, Missing, Stall
from stallscope.recording.writer import Writer

FLOOR_NS = 1_000_000
"""Iterations under a millisecond are not looked at one by one."""
PATIENCE_S = 0.2
"""How long a test that stalled waits for the details: the watchdog has them within a quarter of the threshold."""
_FLOOR = layout.bucket_of(FLOOR_NS)
_OCTAVE = layout.SUB_BUCKETS * layout.CELL
"""Bytes: most looks find all octaves but one or two unchanged."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the loops of this process did since the last look."""

    longest_ns: int
    """The longest iteration, to 3 %; 0 where none lasted a millisecond."""
    stalls: tuple[Stall, ...]
    undetailed: int
    """Stalls whose details did not come."""


class _Kept(Writer):
    """A writer that remembers the stalls of the test that runs."""

    def __init__(self, path: Path, threshold_ns: int, command: str) -> None:
        super().__init__(
            path,
            source="stallscope",
            threshold_ns=threshold_ns,
            started_ns=time.monotonic_ns(),
            started_wall_s=time.time(),
            force=True,
            command=command,
        )
        self.fresh: list[Stall] = []
        self.sites = 0

    def stall(self, stall: Stall) -> int:
        if stall.finished:
            self.fresh.append(stall)
        return super().stall(stall)

    def call_site(self, site: CallSite) -> None:
        self.sites += 1
        super().call_site(site)


class Aboard:
    """Measures this process from `start` to `finish`."""

    def __init__(self, path: Path, threshold_ns: int, command: str) -> None:
        self._threshold_ns = threshold_ns
        self._writer = _Kept(path, threshold_ns, command)
        self._collector = Collector(self._writer)
        self._lock = Lock()
        self._over = Event()
        self._counts: dict[int, bytes] = {}
        self._withheld = 0

    def start(self) -> None:
        """Come aboard.  Raises NotObservable where ``stallscope run`` is aboard already."""
        if "_stallscope_agent" in sys.modules:
            raise NotObservable("this process is observed by stallscope run already: leave out one of the two")
        settings = {"threshold_ns": self._threshold_ns, "socket": self._collector.socket_path, "follow": False}
        self._agent = agent.start({**settings, "owner_pid": os.getpid()})
        self._drain()
        start_new_thread(self._keep_draining, ())  # threading.enumerate() is the tests' own

    def look(self) -> Seen:
        """What happened since the last look; waits a moment for the details of stalls, if there were any."""
        longest, expected = self._fresh_counts()
        if not expected:
            return Seen(layout.bounds_ns(longest)[0] if longest else 0, (), 0)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self._drain()
            withheld = self._withheld_now()
            if len(self._writer.fresh) + withheld - self._withheld >= expected or time.monotonic() > deadline:
                break
            time.sleep(0.001)
        self._withheld = withheld
        with self._lock:
            stalls, self._writer.fresh = tuple(self._writer.fresh), []
        longest_ns = max((stall.duration_ns for stall in stalls), default=layout.bounds_ns(longest)[0])
        return Seen(longest_ns, stalls, max(0, expected - len(stalls)))

    def keep_sites(self, sites: Sequence[CallSite], missing: Sequence[Missing]) -> None:
        """Add call sites that were found by other means, unless the agent knows them better."""
        with self._lock:
            if not self._writer.sites:
                for site in sites:
                    self._writer.call_site(site)
                for one in missing:
                    self._writer.missing(one)

    def finish(self) -> Collector:
        """Leave the process and complete the recording; the collector tells what was seen."""
        self._over.set()
        agent.stop()
        with self._lock, self._collector:
            self._collector.finish()
        return self._collector

    @property
    def process_id(self) -> int:
        """Of this process in the recording."""
        return 1

    def _keep_draining(self) -> None:
        while not self._over.wait(DRAIN_S):
            self._drain()

    def _drain(self) -> None:
        with self._lock:
            if not self._over.is_set():
                self._collector.drain()

    def _withheld_now(self) -> int:
        cells = self._agent.memory.cells
        return int(cells[layout.H_SUPPRESSED] + cells[layout.H_DROPPED])

    def _fresh_counts(self) -> tuple[int, int]:
        """The highest bucket that grew (0: none from a millisecond on), and how many stalls were counted."""
        memory, highest, stalls = self._agent.memory, 0, 0
        first_stall = layout.bucket_of(self._threshold_ns)
        for slot in range(min(memory.cells[layout.H_LOOPS], layout.LOOPS)):
            at = layout.LOOPS_AT + slot * layout.LOOP_BYTES + layout.LOOP_HISTOGRAM_AT + _FLOOR * layout.CELL
            now = bytes(memory.bytes[at : at + (layout.BUCKETS - _FLOOR) * layout.CELL])
            before = self._counts.get(slot, bytes(len(now)))
            if now == before:
                continue
            self._counts[slot] = now
            for at in range(0, len(now), _OCTAVE):
                if now[at : at + _OCTAVE] != before[at : at + _OCTAVE]:
                    for bucket, more in _grown(now, before, at):
                        highest = max(highest, bucket)
                        stalls += more if bucket > first_stall else 0
        return highest, stalls


def _grown(now: bytes, before: bytes, at: int) -> Iterator[tuple[int, int]]:
    """The buckets of one octave that grew, and by how much; of a slot that was given to another loop all is fresh."""
    pairs = zip(
        memoryview(now[at : at + _OCTAVE]).cast("Q"), memoryview(before[at : at + _OCTAVE]).cast("Q"), strict=True
    )
    for bucket, (new, old) in enumerate(pairs, _FLOOR + at // layout.CELL):
        if new != old and new:
            yield bucket, new - old if new > old else new
