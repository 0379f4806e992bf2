"""One observed process: its memory drained into the recording, until it is over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stallscope.collect.memory_reader import LoopSlot, MemoryReader
from stallscope.collect.stalls import MALFORMED, executor_of, site_of, stall_of
from stallscope.recording.nouns import Handler, Missing, Stall
from stallscope.recording.writer import Writer

_COUNTS_HANDLERS = ("asyncio", "trio")
_FOREIGN_LOOPS = {"/uvloop/loop.": "uvloop", "/gevent/_gevent_c": "gevent"}


class Observed:
    """Reads one process's memory; every number goes to the writer as it comes."""

    def __init__(
        self, reader: MemoryReader, writer: Writer, greeting: dict[str, Any], *, expects_pulse: bool = False
    ) -> None:
        self._reader = reader
        self._expects_pulse = expects_pulse
        self._writer = writer
        self.pid = int(greeting["pid"])
        self.counted = 0  # iterations
        self.stalls = 0
        self.worst_ns = 0
        self.foreign: set[str] = set()
        self._loops: dict[tuple[int, int], int] = {}
        self._cpu_before_ns: dict[int, int] = {}
        self._handlers: dict[int, int] = {}
        self._named: dict[int, Handler] = {}
        parent, runtime = int(greeting["parent"]), str(greeting["runtime"])
        command = str(greeting.get("command") or _command_of(self.pid))
        self._id = writer.process(self.pid, parent, command, runtime, reader.started_ns)

    @property
    def suppressed(self) -> int:
        """Stalls whose details were not kept."""
        return self._reader.suppressed

    @property
    def is_over(self) -> bool:
        """Whether the agent has left."""
        return self._reader.is_over

    def dismiss(self) -> None:
        """Ask the agent to leave the process."""
        self._reader.ask_to_leave()

    def drain(self, now_ns: int, *, is_last: bool = False) -> None:
        """Take what is new."""
        self._reader.beat(now_ns)
        for slot in self._reader.loops(nameless=is_last):
            loop_id = self._loop_id(slot)
            self.counted += sum(slot.fresh.values())
            if slot.fresh:
                self._writer.histogram(loop_id, now_ns, slot.fresh)
            if slot.is_open or slot.fresh:
                self._writer.loop_seen(loop_id, now_ns, slot.zero_waits, self._cpu_ns(loop_id, slot.tid))
            else:
                self._reader.drained(slot)
        for record in self._reader.records():
            if "site" in record:
                self._keep_site(record)
            else:
                self._keep(record)

    def drain_slowly(self, now_ns: int) -> None:
        """Take what once a second is enough for: the handlers' counts, and the overdue iteration."""
        self._drain_progress(now_ns)
        if self._reader.has_pulse:
            self._writer.level("pulse")
        for slot, counts in self._reader.handler_counts():
            if slot not in self._handlers:
                self._handlers[slot] = self._writer.handler(self._id, self._handler(slot))
            self._writer.handler_histogram(self._handlers[slot], counts)

    def look_for_foreign_loops(self, pid: int) -> None:
        """Say which loops of this process, or of a child, the agent cannot see, while it can still be asked."""
        if self._reader.has_pulse:
            return
        try:
            maps = Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return
        for sign, name in _FOREIGN_LOOPS.items():
            if sign in maps:
                self.foreign.add(name)
                self._writer.missing(Missing(f"{name}'s iterations", f"{name} runs in C: only the pulse can see it"))

    def finish(self, now_ns: int, ending: str) -> None:
        """The process is over: take the rest, the iteration in progress included."""
        self.drain(now_ns, is_last=True)
        self.drain_slowly(now_ns)
        if self._reader.unseen_loops:
            count = self._reader.unseen_loops
            self._writer.missing(Missing(f"{count} loops", "more loops ran at once than there is room for"))
        if self._loops and self._expects_pulse and not self._reader.has_pulse:
            why = "the pulse could not be loaded in this process"
            self._writer.missing(Missing(f"calls timed exactly in process {self.pid}", why))
        if self._reader.error:
            ending = f"disabled: {self._reader.error}"
            self._writer.missing(Missing("what came after the agent's error", self._reader.error))
        self._writer.process_ended(self._id, now_ns, ending)
        self._reader.close()

    def _cpu_ns(self, loop_id: int, tid: int) -> int | None:
        """CPU time of a loop's thread since it was first seen; None when it has ended, or cannot be known."""
        try:
            ran_ns = int(Path(f"/proc/{self.pid}/task/{tid}/schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return ran_ns - self._cpu_before_ns.setdefault(loop_id, ran_ns)

    def _loop_id(self, slot: LoopSlot) -> int:
        key = (slot.slot, slot.epoch)
        if key not in self._loops:
            self._loops[key] = self._writer.loop(self._id, slot.tid, slot.kind, slot.name, slot.opened_ns)
            if slot.kind not in _COUNTS_HANDLERS:
                why = f"{slot.kind} does not tell when a handler begins: those of stalls are known from their stacks"
                self._writer.missing(Missing(f"handlers of {slot.kind}'s loops, one by one", why))
        return self._loops[key]

    def _keep_site(self, record: Any) -> None:
        try:
            self._writer.call_site(site_of(record, self._id))
        except MALFORMED:
            self._writer.note("a call site's record could not be read and was passed over")

    def _keep(self, record: Any, *, end_ns: int | None = None) -> None:
        try:
            if "counts" in record:
                self._writer.counts_calls(sorted({str(name) for name in record["counts"] if name}))
                return
            if "executors" in record:
                for fields in record["executors"]:
                    self._writer.executor(executor_of(fields, self._id))
                return
            stall = stall_of(record, self._loop_of(record), self._handler, end_ns=end_ns)
        except (*MALFORMED, StopIteration):
            self._writer.note("a stall record could not be read and was passed over")
            return
        self._writer.stall(stall)
        self.worst_ns = max(self.worst_ns, stall.duration_ns)
        self.stalls += stall.finished

    def running(self, now_ns: int) -> Iterator[Stall]:
        """The iteration in progress in each loop, as an unfinished stall, however young it is."""
        for record in self._in_progress():
            with suppress(*MALFORMED, StopIteration):
                yield stall_of(record, self._loop_of(record), self._handler, end_ns=now_ns)

    def _drain_progress(self, now_ns: int) -> None:
        for record in self._in_progress():
            if now_ns - record["start"] >= self._reader.threshold_ns:
                self._keep(record, end_ns=now_ns)

    def _in_progress(self) -> Iterator[Mapping[str, Any]]:
        for slot, started, record in self._reader.in_progress():
            bare = {"loop": slot, "start": started, "task": None, "handler": None}
            yield record or {**bare, "handlers": [], "spans": [], "gc": [], "frames": []}

    def _loop_of(self, record: Mapping[str, Any]) -> int:
        """Raises StopIteration for a slot that is not known."""
        return next(self._loops[key] for key in reversed(self._loops) if key[0] == record["loop"])

    def _handler(self, slot: int) -> Handler:
        if slot not in self._named:
            identity = self._reader.handler(slot)
            name, file, line = str(identity.get("name", "?")), str(identity.get("file", "")), identity.get("line")
            self._named[slot] = Handler(name, file, line if isinstance(line, int) else 0)
        return self._named[slot]


def _command_of(pid: int) -> str:
    import psutil  # 15 ms, for a name: not where the greeting brings it

    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
