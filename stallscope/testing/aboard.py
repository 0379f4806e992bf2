"""The agent and its collector, both in the process that runs the tests.

A test must fail in its own report, so what its loops did must be known when it ends.  Hence the collector is no
process of its own here but a thread, and what the loops' histograms hold is read where the agent writes it.
"""

from __future__ import annotations

import json
import os
import sys
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event, Lock
from time import monotonic, monotonic_ns, sleep, time  # now: a test may put others in their place
from typing import Any, NamedTuple

from stallscope import agent, pulse
from stallscope.agent import layout
from stallscope.agent.memory import Memory
from stallscope.collect.collector import Collector, library_unless
from stallscope.collect.memory_reader import Gains
from stallscope.errors import NotObservable
from stallscope.recording.histogram import first_reaching
from stallscope.recording.nouns import CallSite, Missing, Stall
from stallscope.recording.writer import Writer

PATIENCE_S = 2.0
"""How long a test that stalled beyond its budget waits for the details: they come in milliseconds, unless others keep
the watchdog from a CPU; after 0.2 s some had not come, and the test passed."""
MOST_STALLS = 256
"""Held in memory; the agent gives details of 50 a second."""
REST_S = 2.5
"""Between two drains: a look at a test that stalled drains by itself, and the agent's ring has room for those of five
seconds."""
_FLOOR = layout.bucket_of(layout.LONG_NS)
_LONGS = slice(
    layout.LOOPS_AT // layout.CELL + layout.L_LONG, layout.HANDLERS_AT // layout.CELL, layout.LOOP_BYTES // layout.CELL
)
"""How many iterations were long, of each slot of a loop: to read them all takes no longer than to know which ran."""


class Seen(NamedTuple):
    """What the loops of this process did since the last look."""

    since_ns: int
    until_ns: int
    """Between two looks, on the monotonic clock: iterations that ended in this time."""
    counts: Mapping[int, int]
    """Those that lasted a millisecond (``layout.LONG_NS``): a histogram."""
    stalls: int
    withheld: int
    """Stalls of the session, before these, whose details do not come."""

    @property
    def longest_ns(self) -> int:
        """The longest iteration, to 3 %; 0 where none lasted a millisecond."""
        return layout.bounds_ns(max(self.counts))[0] if self.counts else 0

    @property
    def at_most_ns(self) -> int:
        """What the longest iteration did not reach."""
        return layout.bounds_ns(max(self.counts))[1] if self.counts else 0


class Details(NamedTuple):
    """What is known of the stalls of one look."""

    stalls: tuple[Stall, ...] = ()
    lacking: int = 0
    """Of those beyond the limit that was asked for: how many are known by their length alone."""


class _Kept(Writer):
    """A writer that remembers the stalls of the test that runs."""

    def __init__(self, path: Path, threshold_ns: int, command: str) -> None:
        super().__init__(
            path,
            source="stallscope",
            threshold_ns=threshold_ns,
            started_ns=monotonic_ns(),
            started_wall_s=time(),
            force=True,
            command=command,
        )
        self.fresh: deque[Stall] = deque(maxlen=MOST_STALLS)

    def level(self, level: str) -> None:
        """It stays ``agent``: of a recording by the pulse the gate expects that call sites were drawn."""

    def stall(self, stall: Stall) -> int:
        if stall.finished:
            self.fresh.append(stall)
        return super().stall(stall)


class Aboard:
    """Measures this process from `start` to `finish`.

    Raises NotObservable where somebody is aboard already, before the recording takes the place of an older one.
    """

    def __init__(self, path: Path, threshold_ns: int, command: str) -> None:
        if "_stallscope_agent" in sys.modules:
            raise NotObservable("this process is observed by stallscope run already: leave out one of the two")
        if agent.is_aboard():
            raise NotObservable("the test session around this one measures this process already: leave out one of them")
        self._threshold_ns = threshold_ns
        self._first_stall = first_reaching(threshold_ns)
        self._writer = _Kept(path, threshold_ns, command)
        self._collector = Collector(self._writer, pulse=library_unless(pulse.absent_reason(), self._writer))
        self._lock = Lock()
        self._over = Event()
        self._gains = Gains()
        self._longs = [0] * layout.LOOPS
        self._withheld = 0
        self._looked_ns = monotonic_ns()
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is the process that came aboard, and none forked from it: the recording is not the child's."""
        return os.getpid() == self._pid

    def start(self) -> None:
        """Come aboard."""
        settings = {"threshold_ns": self._threshold_ns, "owner_pid": os.getpid(), "follow": False, "standing": True}
        library = self._collector.pulse
        self._agent = agent.start({**settings, "pulse": library and str(library), "hand_over": self._take})
        start_new_thread(self._keep_draining, ())  # threading.enumerate() is the tests' own

    def listen(self, events: list[str], hook: Callable[[str, tuple[Any, ...]], None]) -> bool:
        """Have the pulse call ``hook(event, arguments)`` for these audit events; False: it cannot, or is not here."""
        return self._agent.pulse is not None and self._agent.pulse.listen(events, hook)

    def look(self) -> Seen:
        """What happened since the last look."""
        since_ns, self._looked_ns = self._looked_ns, monotonic_ns()
        withheld, self._withheld = self._withheld, self._withheld_now()
        counts = self._fresh_counts()
        stalls = sum([more for bucket, more in counts.items() if bucket >= self._first_stall])
        return Seen(since_ns, self._looked_ns, counts, stalls, withheld)

    def details(self, seen: Seen, limit_ns: int) -> Details:
        """The stalls of what was seen last; waits a moment for those beyond a limit, and says how many did not come."""
        deadline = monotonic() + PATIENCE_S
        # In the bucket that holds the threshold are iterations that are no stalls, of which none come.
        first = max(first_reaching(limit_ns), layout.bucket_of(self._threshold_ns) + 1)
        wanted = sum(more for bucket, more in seen.counts.items() if bucket >= first)
        while True:
            self._drain()
            with self._lock:
                known = [stall for stall in self._writer.fresh if seen.since_ns <= _end_ns(stall) <= seen.until_ns]
            lacking = wanted - sum(layout.bucket_of(stall.duration_ns) >= first for stall in known)
            if lacking <= self._withheld_now() - seen.withheld or monotonic() > deadline:
                return Details(tuple(known), max(0, lacking))
            self._agent.hurry()
            sleep(0.002)

    def keep_sites(self, sites: Sequence[CallSite], counted: Iterable[str], missing: Sequence[Missing]) -> None:
        """Add call sites that were found by other means, which count such calls: the agent looks for none."""
        with self._lock:
            self._writer.counts_calls(counted)
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

    def _take(self, memory: Memory, greeting: str) -> None:
        self._collector.take(os.dup(memory.fd), {**json.loads(greeting), "command": " ".join(sys.orig_argv)})

    def _keep_draining(self) -> None:
        while not self._over.wait(REST_S):
            self._drain()

    def _drain(self) -> None:
        with self._lock:
            if not self._over.is_set():
                self._collector.drain()

    def _withheld_now(self) -> int:
        cells = self._agent.memory.cells
        return int(cells[layout.H_SUPPRESSED] + cells[layout.H_DROPPED])

    def _fresh_counts(self) -> dict[int, int]:
        """The buckets that grew, from a millisecond on, and by how much."""
        fresh: dict[int, int] = {}
        longs = self._agent.memory.cells[_LONGS].tolist()
        if longs != self._longs:  # in most phases of a test no iteration was long
            slots = [slot for slot, long in enumerate(longs) if long != self._longs[slot]]
            self._longs = longs
            for slot in slots:
                for bucket, more in self._grown(layout.LOOPS_AT + slot * layout.LOOP_BYTES).items():
                    fresh[bucket] = fresh.get(bucket, 0) + more
        return fresh

    def _grown(self, loop_at: int) -> Mapping[int, int]:
        at = loop_at + layout.LOOP_HISTOGRAM_AT + _FLOOR * layout.CELL
        now = bytes(self._agent.memory.bytes[at : at + (layout.BUCKETS - _FLOOR) * layout.CELL])
        epoch = self._agent.memory.cells[loop_at // layout.CELL + layout.L_EPOCH]
        return self._gains.of(loop_at, epoch, now, _FLOOR)


def _end_ns(stall: Stall) -> int:
    return stall.start_ns + stall.duration_ns
