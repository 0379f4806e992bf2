"""The watchdog: a thread that samples the loop's thread while an iteration is overdue.

It polls once a quarter of the threshold and otherwise sleeps; it never takes a lock that a loop
could want, and the loop never waits for it. ``_thread`` and not ``threading``: the program's
``threading.enumerate()`` and its shutdown stay as they are.
"""

from __future__ import annotations

import sys
from _collections import deque  # type: ignore[import-not-found]
from _thread import allocate_lock, start_new_thread
from time import monotonic_ns, sleep

from . import exact, exact_report, layout, report
from .call_sites import CallSites
from .executors import Executors
from .holders import Holders
from .spans import Span, difference
from .stacks import walk
from .thread_facts import Facts, process_lives

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Tuple

    from .loop_state import LoopState
    from .stacks import Stack


_PUBLISH_NS = 100_000_000  # how often an overdue iteration's progress is published
_REST_NS = 100_000_000  # between two looks, where the pulse watches
_LONGEST_REST_NS = 500_000_000  # and has seen nothing that would be our work
_LINGER_NS = 1_000_000_000  # how long the thread outlives the last open loop
_OWNER_CHECK_NS = 1_000_000_000
_SILENCE_NS = 3_000_000_000  # no heartbeat for so long: ask whether the collector is alive
_SHORTEST_PERIOD_NS = 1_000_000  # a threshold of microseconds must not make the watchdog spin
_MAX_SPANS = 64
_MAX_ENDED = 4096
_MAX_SAMPLED = 256  # iterations of exact loops whose samples are kept: most of them are no stalls in the end
_DETAILS_A_SECOND = 50


class Progress:
    """What is known of one overdue iteration."""

    __slots__ = ("due_ns", "handler", "last_facts", "published_ns", "spans", "started", "task")

    def __init__(self, started: int) -> None:
        self.started = started
        self.spans: List[Span] = []
        self.last_facts: Optional[Facts] = None
        self.due_ns = 0
        self.published_ns = 0
        self.task: Optional[str] = None
        self.handler: Any = None


class Ended:
    """An iteration over the threshold, as the loop's thread left it for the watchdog."""

    __slots__ = ("ended", "progress", "started", "state", "trail")

    def __init__(self, state: Any, started: int, ended: int, trail: Any, progress: Optional[Progress]) -> None:
        self.state, self.started, self.ended = state, started, ended
        self.trail, self.progress = trail, progress


class Watchdog:
    """Samples, and writes stall records; one for each process."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._memory = agent.memory
        self._quarter_ns = agent.quarter_ns
        self._period_ns = max(agent.quarter_ns, _SHORTEST_PERIOD_NS)
        standing = agent.config.get("standing")
        self._calm_ns = agent.threshold_ns if standing else self._period_ns
        self._rest_share = 8 if standing else 32  # of its age; a test's stack is deep, and a sample takes 0.3 ms
        self._thread_runs = False
        self._work = allocate_lock()  # held while at work, so that shutdown does not cut a record in two
        self._second = 0
        self._details = 0
        self._executors = Executors()
        self.ended: Deque[Ended] = deque()
        self._sampled: Dict[Tuple[int, int], Progress] = {}  # by loop slot and start, until the pulse tells the stall
        self._dropped = 0  # records that found the ring full
        self._turned_away: Dict[int, int] = {}  # by loop slot: what one thread alone writes needs no lock
        self._holders = Holders()
        self._sites = CallSites(agent)

    def wake(self) -> None:
        """Start the thread unless it runs."""
        if not self._thread_runs:
            self._thread_runs = True
            try:
                start_new_thread(self._run, ())
            except RuntimeError:  # no more threads, or the interpreter is going down
                self._thread_runs = False
                raise

    def leave(self, ended: Ended) -> None:
        """Called by a loop's thread: a stall to be written; bounded, and never waits."""
        if len(self.ended) < _MAX_ENDED:
            self.ended.append(ended)
        else:
            self._turned_away[ended.state.cell] = self._turned_away.get(ended.state.cell, 0) + 1

    def finish(self) -> None:
        """Write what is left; called as the process ends or the agent leaves."""
        if self._work.acquire(timeout=2.0):
            try:
                if self._agent.pulse is not None:
                    self._take_exact(monotonic_ns(), finishing=True)
                self._write_ended()
                self._tell_executors(None)
            finally:
                self._work.release()

    def _run(self) -> None:
        try:
            self._poll()
        except Exception as error:
            self._agent.failed(error)
        finally:
            self._thread_runs = False

    def _poll(self) -> None:
        agent = self._agent
        idle_since = checked = monotonic_ns()
        while agent.alive[0]:
            planned = self._rest()
            now = monotonic_ns()
            with self._work:
                self._watch(now, now - planned)
            if self._memory.cells[layout.H_STOP]:
                agent.stop()
                return
            if now - checked > _OWNER_CHECK_NS:
                checked = now
                if self._orphaned(now):
                    agent.stop("the collector went away")
            if agent.open_loops:
                idle_since = now
            elif now - idle_since > _LINGER_NS and not agent.attached and agent.pulse is None:
                self._thread_runs = False
                if not agent.open_loops:  # a loop may have opened since: then go on
                    return
                self._thread_runs = True

    def _rest(self) -> int:
        """Sleep until the next look; returns when that was to be.

        Where the pulse measures every loop there is no hurry: it wakes us when it needs somebody who wants the GIL.
        """
        pulse = self._agent.pulse
        if pulse is None:
            begun = monotonic_ns()
            rest_ns = self._measured_rest_ns(begun)
            planned: int = begun + rest_ns
            sleep(rest_ns / 1e9)
        else:
            rest_ns, longest_ns = self._exact_rest_ns()
            planned = monotonic_ns() + longest_ns
            pulse.wait(rest_ns, longest_ns)
        return planned

    def _measured_rest_ns(self, now: int) -> int:
        """Where calm looks are rare, no look at what is overdue before its next sample either: most came too early."""
        overdue = [state.progress for state in list(self._agent.open_loops)]
        dues = [progress.due_ns for progress in overdue if progress is not None]
        rest_ns: int = min(max(min(dues) - now, self._period_ns), self._calm_ns) if dues else self._calm_ns
        return rest_ns

    def _exact_rest_ns(self) -> Tuple[int, int]:
        """How long to rest, and how long if there is nothing to do.

        Each of our looks costs a saturated program more than what we do: it has to give the GIL up, and gets it back
        when we are done. A loop that is declared, or found as we work, wakes nobody.
        """
        states = list(self._agent.open_loops)
        if not all(state.exact for state in states):
            rest_ns = self._measured_rest_ns(monotonic_ns())
            return rest_ns, rest_ns
        rest_ns = max(_REST_NS, int(self._period_ns))
        has_more = not states or self._agent.pulse.holds() or self._executors.are_there()
        has_more = has_more or self._sites.are_due() or any(exact.is_never_at_rest(state) for state in states)
        return rest_ns, rest_ns if has_more else max(_LONGEST_REST_NS, rest_ns)

    def _watch(self, now: int, late_ns: int) -> None:
        if self._agent.pulse is not None:
            self._take_exact(now)
        for state in list(self._agent.open_loops):
            if not state.exact:
                self._memory.cells[state.cell + layout.L_ZERO_WAITS] = state.zero_waits
            started = state.started
            if self.ended:
                self._explain_unseen(state, now, max(late_ns, 0))
            patience_ns = _PUBLISH_NS if exact.takes_stacks(state) else self._quarter_ns
            if started and now - started >= patience_ns:
                self._overdue(state, started, now, max(late_ns, 0))
            else:
                self._healthy(state)
            state.seen, state.cpu_ns = now, state.files.cpu_ns()
        if self.ended:
            self._write_ended()
        if self._executors.due(now):
            self._executors.look(now, [state.loop() for state in list(self._agent.open_loops)])
            self._tell_executors(now)

    def _tell_executors(self, now: Optional[int]) -> None:
        record = self._executors.to_tell(now)
        if record is not None:
            self._memory.put_record(record)

    def _healthy(self, state: LoopState) -> None:
        if state.trail is not None:  # set a moment too late, when the iteration had just ended
            state.trail = state.progress = None
        if state.published:
            state.published = False
            self._memory.put_progress(state.loop_at, "")

    def _overdue(self, state: Any, started: int, now: int, late_ns: int) -> None:
        progress = state.progress
        if progress is None or progress.started != started:
            if not state.running():  # its run has just ended, or it stopped without telling
                state.stopped = state.stopped or now
                if now - state.stopped > _LINGER_NS:
                    state.started = 0
                return
            state.stopped = 0
            progress = Progress(started)
            state.trail, state.progress = {}, progress
            if state.exact:
                self._keep(state, progress)
        if now < progress.due_ns:
            return
        stack = walk(sys._current_frames().get(state.ident))
        self._sample(state, progress, stack, now, late_ns)
        if now - started >= self._agent.threshold_ns and now - progress.published_ns >= _PUBLISH_NS:
            progress.published_ns, state.published = now, True
            self._memory.put_progress(state.loop_at, report.of_progress(self._agent, state, progress, now))

    def _keep(self, state: Any, progress: Progress) -> None:
        """The pulse may tell of a stall long after its end, when the loop is healthy again or in the next one."""
        if len(self._sampled) >= _MAX_SAMPLED:
            del self._sampled[next(iter(self._sampled))]
        self._sampled[state.loop_at, progress.started] = progress

    def _sample(self, state: Any, progress: Progress, stack: Stack, now: int, late_ns: int) -> None:
        if state.started != progress.started:
            return
        facts = state.files.facts()
        after = monotonic_ns()
        if state.started != progress.started:  # it ended while we looked: the stack and the CPU time are its own
            if progress.spans:
                return
            facts = Facts(cpu_ns=facts.cpu_ns)
        spans = progress.spans
        span = Span(spans[-1].to_ns if spans else progress.started, now, stack, facts, progress.last_facts)
        span.late_ns = late_ns
        if not spans:
            span.cpu_ns = _cpu_since(state, span.from_ns, now, facts.cpu_ns)
        if len(spans) > 1 and (_alike(spans[-1], span) or len(spans) >= _MAX_SPANS):
            spans[-1].absorb(span)
        else:
            spans.append(span)
        progress.last_facts = facts
        # Ever more rarely as it goes on: a hang of a minute is no reason for thousands of samples.
        rest_ns = min((now - progress.started) // self._rest_share, 250_000_000)
        progress.due_ns = after + rest_ns - self._period_ns // 2
        if progress.handler is None:
            progress.handler = exact.handler_on(state, stack)
            progress.task = report.task_name(state)

    def _explain_unseen(self, state: LoopState, now: int, late_ns: int) -> None:
        """Stalls that nobody sampled since the last look: was the thread running at all?"""
        for ended in list(self.ended):
            if ended.state is state and ended.progress is None:
                ended.progress = progress = Progress(ended.started)
                progress.spans.append(Span(ended.started, ended.ended, (), Facts(), None))
                progress.spans[0].late_ns = late_ns
                # Nobody saw it because the thread ran on and kept the GIL: what it ran since is no part of it.
                cpu_ns = difference(state.files.cpu_ns(), now - ended.ended)
                progress.spans[0].cpu_ns = _cpu_since(state, ended.started, ended.ended, cpu_ns)

    def _write_ended(self) -> None:
        while self.ended:
            ended = self.ended.popleft()
            if not self._within_rate(ended.ended):
                self._memory.cells[layout.H_SUPPRESSED] += 1
            elif not self._memory.put_record(report.of_stall(self._agent, ended)):
                self._dropped += 1
            self._memory.cells[layout.H_DROPPED] = self._dropped + sum(list(self._turned_away.values()))

    def _take_exact(self, now: int, finishing: bool = False) -> None:
        """What the pulse has measured since the last look."""
        agent = self._agent
        exact.name_undeclared(agent, now, finishing)
        self._holders.look([state.ident for state in agent.open_loops if exact.waits_for_gil(agent, state)])
        stalls, seen = agent.pulse.take(finishing)
        for stall in stalls:
            if not finishing:
                agent.pulse.give_way()  # a record takes a millisecond
            state = exact.loop_of(agent, stall.slot_at)
            progress = self._sampled.pop((stall.slot_at, stall.start_ns), None)
            if not self._within_rate(stall.end_ns):
                self._memory.cells[layout.H_SUPPRESSED] += 1
            elif not self._memory.put_record(exact_report.of_exact(agent, state, stall, progress, self._holders)):
                self._dropped += 1
        for call in seen:
            self._sites.add(call)
        if finishing:
            self._sites.publish_all(self._memory)
        else:
            self._sites.publish(self._memory, now)
        self._memory.cells[layout.H_DROPPED] = self._dropped + agent.pulse.dropped()

    def _within_rate(self, now: int) -> bool:
        second = now // 1_000_000_000
        if second != self._second:
            self._second, self._details = second, 0
        self._details += 1
        return self._details <= _DETAILS_A_SECOND

    def _orphaned(self, now: int) -> bool:
        """The collector has not drained for seconds, and its process is gone (or silent for a minute)."""
        silence = now - self._memory.cells[layout.H_HEARTBEAT]
        if silence < _SILENCE_NS:
            return False
        return silence > 20 * _SILENCE_NS or not process_lives(self._agent.owner_pid)


def _alike(one: Span, other: Span) -> bool:
    return one.stack == other.stack and one.facts.call == other.facts.call


def _cpu_since(state: LoopState, begun: int, ended: int, cpu_ns: Optional[int]) -> Optional[int]:
    """CPU time in [begun, ended), of a thread that was last looked at about when it began.

    What it ran between that look and the beginning is not known: the middle of what is possible,
    or None where that could be far from the truth.
    """
    spent = difference(cpu_ns, state.cpu_ns)
    if spent is None:
        return None
    least = max(spent - max(begun - state.seen, 0), 0)
    most = min(max(spent + max(state.seen - begun, 0), 0), ended - begun)
    return (least + most) // 2 if 4 * (most - least) <= ended - begun else None
