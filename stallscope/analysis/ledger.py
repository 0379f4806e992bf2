"""One stall's wall time divided among causes, to the nanosecond.

Evidence is taken in the order of its worth, each piece from the time that better ones left over:

1. stops of the whole process, runs of the garbage collector and timed calls are exact intervals; sums of many short
   calls are exact amounts;
2. a span between two samples has counters of its thread: CPU time ran, run-queue delay waited for a CPU, the rest was
   blocked in the call in which the sample caught it, or in the one before;
3. what nothing speaks for is ``unexplained``.

A sample is taken by a thread that holds the GIL, so Python code that computes is *always* caught in ``futex``, waiting
to have the GIL back.  The call of a sample is therefore evidence for blocked time only, never for the whole span.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from stallscope.analysis.preemption import STOPPED, Idle, is_lock, merely_waits, waited_for_cpu
from stallscope.analysis.sites import bare, entry, location
from stallscope.recording.nouns import Call, GcPause, Span, Stack, Stall, TimedCall

Cause = Literal[
    "blocking-syscall",
    "lock-wait",
    "gil-wait",
    "gc",
    "python-cpu",
    "native-cpu",
    "import",
    "descheduled",
    "suspended",
    "unexplained",
]
CAUSES: tuple[Cause, ...] = get_args(Cause)

# A thread that wants the GIL wakes every 5 ms (sys.getswitchinterval) to ask for it.  A wait that lasted two of those
# without waking was for something else; a sampler that waited two of them for the GIL met code that keeps it.
TWO_SWITCHES_NS = 10_000_000
PROMPT_NS = 4_000_000  # a sampler that waited less than a switch for the GIL met code that had given it up
SAMPLE_GAPS = 3  # a stall's end further from its last sample than so many usual distances is not that sample's

_LOCK_FUNCTIONS = frozenset({"acquire", "wait", "_wait_for_tstate_lock", "join", "result", "__enter__", "get", "put"})
_LOCK_FILES = ("/threading.py", "/queue.py", "/_base.py", "/multiprocessing/synchronize.py")


class Slice(NamedTuple):
    """A part of a stall that one piece of evidence explains; `samples` is 0 where it was measured exactly, and `calls`
    the number of calls that were timed."""

    ns: int
    cause: Cause
    call: Call | None = None
    stack: Stack = ()
    samples: int = 0
    calls: int = 0


def ledger(slices: Iterable[Slice]) -> dict[Cause, int]:
    """The ns of each cause that has any, in the order of `CAUSES`."""
    sums = dict.fromkeys(CAUSES, 0)
    for part in slices:
        sums[part.cause] += part.ns
    return {cause: ns for cause, ns in sums.items() if ns}


def divide(stall: Stall, threshold_ns: int) -> list[Slice]:
    """The parts of a stall, each explained once, those that are alike as one: their ns sum exactly to its duration."""
    left = _Uncovered(stall.start_ns, stall.start_ns + stall.duration_ns)
    slices = _exact(stall, left)
    spans = _with_calls(sorted(stall.spans, key=lambda s: s.from_ns))
    spans = _with_tail(_with_head(spans), stall, threshold_ns)
    context = _Context(stall.pauses, _gil_sites(spans))
    for before, span in zip([None, *spans], spans, strict=False):
        slices += _parts(span, before, left, context)
    slices.append(Slice(left.total_ns, "unexplained"))
    return _together(part for part in slices if part.ns > 0)


def wait_cause(call: Call) -> Cause:
    """The cause of time blocked in a call whose interval is known to be a wait for what the call names."""
    if call.name == "gil":
        return "gil-wait"
    if is_lock(call) or (call.resource is not None and call.resource.kind == "lock"):
        return "lock-wait"
    return "blocking-syscall"


@dataclass(frozen=True, slots=True)
class _Context:
    """What the other evidence of a stall says about each of its spans."""

    pauses: Sequence[GcPause]
    gil_sites: frozenset[object]


class _Uncovered:
    """The intervals of a stall that no evidence has explained yet, ascending."""

    def __init__(self, lo: int, hi: int) -> None:
        self._free = [(lo, hi)] if hi > lo else []

    @property
    def total_ns(self) -> int:
        return sum(hi - lo for lo, hi in self._free)

    def take_part(self, lo: int, hi: int, ns: int) -> int:
        """Covers `ns` of what is free in [lo, hi), spread evenly over it; returns how many ns there were to cover."""
        inside = [(max(a, lo), min(b, hi)) for a, b in self._free if a < hi and b > lo]
        free = sum(b - a for a, b in inside)
        taken = min(ns, free)
        rest = taken
        for number, (a, b) in enumerate(inside, start=1):
            part = rest if number == len(inside) else (b - a) * taken // free
            self.take(b - part, b)
            rest -= part
        return taken

    def take(self, lo: int, hi: int) -> int:
        """Covers [lo, hi) and returns how many ns of it were free."""
        if hi <= lo:
            return 0
        taken, kept = 0, []
        for a, b in self._free:
            if b <= lo or hi <= a:
                kept.append((a, b))
                continue
            taken += min(b, hi) - max(a, lo)
            kept += [(a, lo)] * (a < lo) + [(hi, b)] * (hi < b)
        self._free = kept
        return taken


def _together(slices: Iterable[Slice]) -> list[Slice]:
    """Slices of the same evidence for the same code as one: what follows costs so much a slice, and a stall that was
    sampled ten times has thirty."""
    alike: dict[object, list[Slice]] = {}
    for part in slices:
        # A recording holds each call and stack once, and to hash forty frames costs more than all the rest.
        key = (part.cause, id(part.call), id(part.stack), part.samples > 0, part.calls > 1)
        alike.setdefault(key, []).append(part)
    return [_sum(parts) for parts in alike.values()]


def _sum(parts: Sequence[Slice]) -> Slice:
    first = parts[0]
    if len(parts) == 1:
        return first
    return first._replace(
        ns=sum(one.ns for one in parts),
        samples=sum(one.samples for one in parts),
        calls=sum(one.calls for one in parts),
    )


def _exact(stall: Stall, left: _Uncovered) -> list[Slice]:
    """What was measured and not sampled: stops of the whole process, collections, calls; sums of short calls last, for
    they have no interval of their own."""
    slices = []
    for span in stall.spans:
        if span.state in STOPPED:
            slices.append(Slice(left.take(span.from_ns, span.to_ns), "suspended", None, span.stack))
    for pause in stall.pauses:
        ns = left.take(pause.start_ns, pause.start_ns + pause.duration_ns)
        slices.append(Slice(ns, "gc", None, pause.stack or _stack_at(stall.spans, pause.start_ns)))
    waited = waited_for_cpu(stall)
    idle = Idle(stall, waited)
    for index, timed in sorted(enumerate(stall.calls), key=lambda numbered: numbered[1].calls > 1):
        stack = timed.stack or _stack_at(stall.spans, timed.start_ns)
        cause = _timed_cause(timed, stack)
        call = None if cause == "import" else timed.call
        ns = _covered(timed, stall, left, idle)
        off_ns = min(ns, waited.get(index, 0))
        slices.append(Slice(ns - off_ns, cause, call, stack, calls=timed.calls))
        slices.append(Slice(off_ns, "descheduled", None, stack))
    return slices


def _covered(timed: TimedCall, stall: Stall, left: _Uncovered, idle: Idle) -> int:
    if timed.calls == 1:
        return left.take(timed.start_ns, timed.start_ns + timed.duration_ns)
    ns = sum(left.take_part(*part) for part in idle.take(timed.start_ns, timed.duration_ns))
    if idle.is_known and merely_waits(timed.call):
        return ns  # the rest was a wait for a CPU, and is counted as that
    return ns + left.take_part(timed.start_ns, stall.start_ns + stall.duration_ns, timed.duration_ns - ns)


def _timed_cause(timed: TimedCall, stack: Stack) -> Cause:
    """The import system's own calls are the import's."""
    cause = wait_cause(timed.call)
    return "import" if cause == "blocking-syscall" and _in_import(stack) else cause


def _in_import(stack: Stack) -> bool:
    """Whether the import system is at work."""
    return any("importlib" in frame.file for frame in stack)


def _stack_at(spans: Sequence[Span], at_ns: int) -> Stack:
    return next((span.stack for span in spans if span.from_ns <= at_ns < span.to_ns), ())


def _with_calls(spans: list[Span]) -> list[Span]:
    """The kernel does not tell in which call a thread is while it runs there (to hand pages to a disk, say): it is the
    call in which another sample of the stall caught the same line, if the thread had given up the GIL."""
    if all(span.call is not None for span in spans):
        return spans
    caught = {span.stack: span.call for span in spans if span.call is not None and not is_lock(span.call)}
    return [
        span._replace(call=caught[span.stack])
        if span.call is None
        and span.stack in caught
        and span.late_ns < PROMPT_NS
        and (span.switches is not None or span is spans[0])
        else span
        for span in spans
    ]


def _with_head(spans: list[Span]) -> list[Span]:
    """The first span has no counters: it began before sampling did.  It gets those of the second in proportion, where
    both were caught in the same code."""
    if len(spans) < 2 or spans[0].cpu_ns is not None:
        return spans
    first, second = spans[:2]
    length = second.to_ns - second.from_ns
    if second.cpu_ns is None or length <= 0 or not _alike(first, second):
        return spans
    scale = (first.to_ns - first.from_ns) / length
    head = first._replace(
        cpu_ns=round(second.cpu_ns * scale),
        run_delay_ns=round((second.run_delay_ns or 0) * scale),
        switches=None if second.switches is None else round(second.switches * scale),
        late_ns=max(first.late_ns, second.late_ns),
    )
    return [head, *spans[1:]]


def _alike(first: Span, second: Span) -> bool:
    if _entered(first) != _entered(second):
        return False
    if first.call is None or is_lock(first.call):
        return True
    return second.call is not None and second.call.name == first.call.name


def _entered(span: Span) -> object:
    frame = entry(span.stack)
    return frame and (frame.file, frame.function)


def _with_tail(spans: list[Span], stall: Stall, threshold_ns: int) -> list[Span]:
    """What follows the last sample goes on as it was, as long as another sample was not overdue."""
    if not spans:
        return spans
    last = spans[-1]
    end_ns = stall.start_ns + stall.duration_ns
    reach = max(threshold_ns, SAMPLE_GAPS * _usual_distance_ns(spans))
    to_ns = min(end_ns, last.to_ns + reach)
    if to_ns <= last.to_ns:
        return spans
    scale = (to_ns - last.from_ns) / max(1, last.to_ns - last.from_ns)
    longer = last._replace(
        to_ns=to_ns,
        cpu_ns=None if last.cpu_ns is None else round(last.cpu_ns * scale),
        run_delay_ns=None if last.run_delay_ns is None else round(last.run_delay_ns * scale),
    )
    return [*spans[:-1], longer]


def _usual_distance_ns(spans: Sequence[Span]) -> int:
    counted = [span for span in spans[1:] if span.cpu_ns is not None and span.samples > 0]
    distances = sorted((span.to_ns - span.from_ns) // span.samples for span in counted)
    return distances[len(distances) // 2] if distances else 0


def _parts(span: Span, before: Span | None, left: _Uncovered, context: _Context) -> list[Slice]:
    """The causes of one span, of the time in it that is still free."""
    if span.from_ns >= span.to_ns:
        return []
    free = left.take(span.from_ns, span.to_ns)
    if span.cpu_ns is None:
        cause, call = _without_counters(span)
        return [Slice(free, cause, call, span.stack, span.samples)]
    # The collector ran on the CPU, timed calls did not: only the former took CPU time out of the span.
    collected = sum(_overlap(span, pause.start_ns, pause.duration_ns) for pause in context.pauses)
    cpu = min(free, max(0, span.cpu_ns - collected))
    delay = min(free - cpu, max(0, span.run_delay_ns or 0))
    return [
        _ran(cpu, span),
        Slice(delay, "descheduled", None, span.stack, span.samples),
        _blocked(free - cpu - delay, span, before, context.gil_sites),
    ]


def _overlap(span: Span, start_ns: int, duration_ns: int) -> int:
    return max(0, min(span.to_ns, start_ns + duration_ns) - max(span.from_ns, start_ns))


def _ran(ns: int, span: Span) -> Slice:
    """The time of a span in which its thread ran: the kernel's work for a call is the call's, a quarter of it at most,
    for there may have been many calls and Python between them."""
    in_call = span.call is not None and not is_lock(span.call) and span.late_ns < PROMPT_NS
    if in_call and (4 * ns <= span.to_ns - span.from_ns or span.samples == 1):
        return Slice(ns, "blocking-syscall", span.call, span.stack, span.samples)
    return Slice(ns, _cpu_cause(span), None, span.stack, span.samples)


def _cpu_cause(span: Span) -> Cause:
    if _in_import(span.stack):
        return "import"
    # A busy machine delays the sampler as well, and so do other threads that hold the GIL: it must have waited for most
    # of what it saw, and this thread have run for most of that.
    delay_ns = span.run_delay_ns or 0
    length = span.to_ns - span.from_ns - delay_ns
    ran_ns = length if span.cpu_ns is None else span.cpu_ns
    late_ns = span.late_ns - delay_ns
    held = late_ns > TWO_SWITCHES_NS and 2 * late_ns >= ran_ns and 2 * ran_ns >= length
    return "native-cpu" if held else "python-cpu"


def _blocked(ns: int, span: Span, before: Span | None, gil_sites: frozenset[object]) -> Slice:
    """The time of a span in which its thread neither ran nor was ready to."""
    if span.state in STOPPED:
        return Slice(ns, "suspended", None, span.stack, span.samples)
    waits_for_gil = span.call is not None and is_lock(span.call) and _site(span) in gil_sites
    if before is not None and before.call is not None and _has_left(span, waits_for_gil, before, gil_sites):
        return Slice(ns, wait_cause(before.call), before.call, before.stack, span.samples)
    if waits_for_gil:
        return Slice(ns, "gil-wait", None, span.stack, span.samples)
    if span.call is not None:
        return Slice(ns, wait_cause(span.call), span.call, span.stack, span.samples)
    if _site(span) in gil_sites and (span.switches or span.state != "R"):
        return Slice(ns, "gil-wait", None, span.stack, span.samples)
    # The kernel counts a wait for a CPU only when it is over.  And where nobody met the thread before the stall's end
    # because the sampler could not run either, both were kept from running.
    held = span.state == "R" or (not span.state and 2 * span.late_ns >= span.to_ns - span.from_ns)
    return Slice(ns, "descheduled" if held else "unexplained", None, span.stack, span.samples)


def _has_left(span: Span, waits_for_gil: bool, before: Span, gil_sites: frozenset[object]) -> bool:
    """Whether a span's sample met the thread on its way out of the call that the one before had met.

    It is out of the call, or it waits for the GIL, which the sampler holds; the latter for one sample only.
    """
    if before.call is not None and is_lock(before.call):
        return span.call is None and _site(span) == _site(before) and _site(before) not in gil_sites
    return span.call is None or (waits_for_gil and span.samples == 1)


def _gil_sites(spans: Sequence[Span]) -> frozenset[object]:
    """The sites whose futex waits are for the GIL: code that mostly ran, or that woke as often as the GIL makes it."""
    blocked: Counter[object] = Counter()
    wakes: Counter[object] = Counter()
    running: set[object] = set()
    for span in spans:
        if span.cpu_ns is not None and span.call is not None and is_lock(span.call):
            site, length = _site(span), span.to_ns - span.from_ns
            blocked[site] += max(0, length - span.cpu_ns - (span.run_delay_ns or 0))
            wakes[site] += span.switches or 0
            if 2 * span.cpu_ns > length:
                running.add(site)
    often = {site for site, count in wakes.items() if count and blocked[site] / count <= TWO_SWITCHES_NS}
    return frozenset(running | often)


def _site(span: Span) -> object:
    where = location(span.stack)
    return where and (where.file, where.line)


def _without_counters(span: Span) -> tuple[Cause, Call | None]:
    """What a lone sample says of the time before it."""
    if span.state in STOPPED:
        return "suspended", None
    if span.call is not None and not is_lock(span.call):
        return wait_cause(span.call), span.call
    if span.call is not None and _in_lock(span.stack):
        return "lock-wait", span.call
    if span.late_ns > max(TWO_SWITCHES_NS, span.to_ns - span.from_ns):
        return "unexplained", None  # the sampler was held up by something else, and met the thread at its end only
    if span.call is not None or span.state in ("R", ""):
        return _cpu_cause(span), None
    return ("blocking-syscall" if span.state == "D" else "unexplained"), None


def _in_lock(stack: Stack) -> bool:
    return bool(stack) and bare(stack[0].function) in _LOCK_FUNCTIONS and stack[0].file.endswith(_LOCK_FILES)
