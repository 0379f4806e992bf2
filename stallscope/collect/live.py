"""What a view of the present needs of a recording, kept in memory while the recording is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stallscope.recording.histogram import first_reaching, middle_ns
from stallscope.recording.nouns import Fidelity, Handler, HandlerCounts, Loop, Missing, Process, Recording, Stall
from stallscope.recording.writer import Writer

STALLS_KEPT = 200
"""The latest ones: what they say is what is going on, and to look through more would cost the collector more."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What one loop has done so far; its stalls by the histogram, so that those without details are among them."""

    iterations: int = 0
    busy_ns: int = 0
    stalls: int = 0


class Latest:
    """The loops' and handlers' histograms of a recording, and the latest ``STALLS_KEPT`` of its stalls."""

    def __init__(self, threshold_ns: int, started_ns: int) -> None:
        self.threshold_ns = threshold_ns
        self._first_stall = first_reaching(threshold_ns)
        self._started_ns = started_ns
        self.level = "agent"
        self.missing: dict[str, Missing] = {}
        self.processes: dict[int, Process] = {}
        self.loops: dict[int, Loop] = {}
        self.handlers: dict[int, tuple[int, Handler]] = {}
        self.totals: dict[int, Totals] = {}
        self._counts: dict[int, Counter[int]] = {}
        self._calls: dict[int, Counter[int]] = {}
        self._stalls: dict[tuple[int, int], Stall] = {}

    def add(self, loop_id: int, counts: Mapping[int, int]) -> None:
        """Iterations that ended."""
        self._counts.setdefault(loop_id, Counter()).update(counts)
        before, slow = self.totals.get(loop_id, Totals()), self._first_stall
        self.totals[loop_id] = Totals(
            before.iterations + sum(counts.values()),
            before.busy_ns + sum(middle_ns(bucket) * count for bucket, count in counts.items()),
            before.stalls + sum(count for bucket, count in counts.items() if bucket >= slow),
        )

    def add_calls(self, handler_id: int, counts: Mapping[int, int]) -> None:
        """Calls of a handler that ended."""
        self._calls.setdefault(handler_id, Counter()).update(counts)

    def keep(self, stall: Stall) -> None:
        """A stall; it takes the place of its own unfinished record, and of the oldest where there are too many."""
        key = stall.loop_id, stall.start_ns
        known = self._stalls.pop(key, None)
        self._stalls[key] = known if known is not None and known.finished and not stall.finished else stall
        if len(self._stalls) > STALLS_KEPT:
            del self._stalls[next(iter(self._stalls))]

    def recording(self, now_ns: int) -> Recording:
        """All of it as a recording that ends now."""
        return Recording(
            path="",
            source="stallscope",
            threshold_ns=self.threshold_ns,
            started_ns=self._started_ns,
            ended_ns=now_ns,
            fidelity=Fidelity(self.level, tuple(self.missing.values())),
            processes=tuple(self.processes.values()),
            loops=tuple(self._counted()),
            handlers=tuple(HandlerCounts(*self.handlers[key], dict(calls)) for key, calls in self._calls.items()),
            stalls=tuple(self._stalls.values()),
            complete=False,
        )

    def _counted(self) -> Iterator[Loop]:
        for loop in self.loops.values():
            yield loop._replace(counts=dict(self._counts.get(loop.id, {})))


class LiveWriter(Writer):
    """A writer that keeps the latest in memory too."""

    def __init__(self, path: Path, *, threshold_ns: int, started_ns: int, **more: Any) -> None:
        super().__init__(path, threshold_ns=threshold_ns, started_ns=started_ns, **more)
        self.latest = Latest(threshold_ns, started_ns)

    def process(self, pid: int, parent_pid: int, program: str, runtime: str, started_ns: int) -> int:
        number = super().process(pid, parent_pid, program, runtime, started_ns)
        self.latest.processes[number] = Process(number, pid, parent_pid, program, runtime, started_ns)
        return number

    def process_ended(self, process_id: int, ended_ns: int, ending: str) -> None:
        super().process_ended(process_id, ended_ns, ending)
        known = self.latest.processes[process_id]
        self.latest.processes[process_id] = known._replace(ended_ns=ended_ns, ending=ending)

    def loop(self, process_id: int, tid: int, kind: str, name: str, opened_ns: int) -> int:
        number = super().loop(process_id, tid, kind, name, opened_ns)
        pid = self.latest.processes[process_id].pid
        self.latest.loops[number] = Loop(number, process_id, pid, tid, kind, name, opened_ns, opened_ns, {})
        return number

    def loop_seen(self, loop_id: int, last_ns: int, zero_waits: int | None, cpu_ns: int | None = None) -> None:
        super().loop_seen(loop_id, last_ns, zero_waits, cpu_ns)
        known = self.latest.loops[loop_id]
        self.latest.loops[loop_id] = known._replace(last_ns=last_ns, zero_waits=zero_waits)

    def histogram(self, loop_id: int, at_ns: int, counts: Mapping[int, int]) -> None:
        super().histogram(loop_id, at_ns, counts)
        self.latest.add(loop_id, counts)

    def handler(self, process_id: int, handler: Handler) -> int:
        number = super().handler(process_id, handler)
        self.latest.handlers[number] = process_id, handler
        return number

    def handler_histogram(self, handler_id: int, counts: Mapping[int, int]) -> None:
        super().handler_histogram(handler_id, counts)
        self.latest.add_calls(handler_id, counts)

    def stall(self, stall: Stall) -> int:
        self.latest.keep(stall)
        return super().stall(stall)

    def missing(self, missing: Missing) -> None:
        super().missing(missing)
        self.latest.missing[missing.what] = missing

    def level(self, level: str) -> None:
        super().level(level)
        self.latest.level = level
