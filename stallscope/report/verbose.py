"""What ``-v`` adds for people: the causes of all stalls, every culprit's remedy, who delayed whom, thread pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from stallscope.analysis.findings import Culprit, Findings, HandlerDelay, Pool
from stallscope.analysis.ledger import Cause
from stallscope.recording.nouns import Executor
from stallscope.report import frames
from stallscope.report.culprit_table import call_of
from stallscope.report.page import Lines
from stallscope.report.words import MEANING, count, duration, fitted, percent, place, short_path

HANDLERS_SHOWN = 10
RESOURCES_SHOWN = 3
FEW_THREADS = 100
"""A bound above it bounds nothing."""
_UNKNOWN = "unknown"


def draw(findings: Findings, width: int) -> Lines:
    """The sections, each after an empty line; none without stalls."""
    yield from _causes(findings)
    if findings.stalls and not findings.patterns:
        yield "  The stalls keep no period, and no two processes stall in the same instant."
    for one in findings.culprits:
        yield from _culprit(one, width)
    yield from _executors(findings.recording.executors)
    yield from _delays(findings.delays, width)


def _causes(findings: Findings) -> Lines:
    if not findings.causes:
        return
    yield ""
    yield Text(f"{'cause':<18}{'share':>8}{'time':>10}{'stalls':>9}   the loop", style="bold", no_wrap=True)
    for one in findings.causes:
        numbers = f"{one.cause:<18}{percent(one.share):>8}{duration(one.ns):>10}{one.stalls:>9,}"
        yield Text(f"{numbers}   {MEANING[one.cause]}", no_wrap=True)
    total_ns = sum(one.ns for one in findings.causes)
    yield Text(f"{'all':<18}{'100 %':>8}{duration(total_ns):>10}{len(findings.stalls):>9,}", no_wrap=True)
    if findings.missing:
        yield f"  What could not be seen may hide a cause: {'; '.join(one.what for one in findings.missing)}."


def _culprit(one: Culprit, width: int) -> Lines:
    yield ""
    where = f" at {place(one.location.file, one.location.line)}" if one.location else ""
    yield Text(f"#{one.rank} {call_of(one) or one.cause}{where}", style="bold")
    for line in frames.lines(one.stack, one.location):
        told = Text(line, no_wrap=True)
        told.truncate(width, overflow="ellipsis")
        yield told
    yield from _evidence(one)
    if one.advice is not None:
        for advice in (one.advice, *one.advice.also):
            yield f"  {advice.summary}"
            for line in advice.code.splitlines():
                yield Text(f"      {line}", style="green", no_wrap=True)
            yield Text(f"      see {advice.source}", style="dim", no_wrap=True)
    if one.pool is not None:
        yield f"  {_pool(one.pool)}"


def _evidence(one: Culprit) -> Lines:
    if one.calls is not None:
        mean = duration(one.ns / one.calls)
        yield f"  measured: {count(one.calls, 'call')} in {count(one.stalls, 'stall')}, {mean} each on average"
    named = [resource for resource in one.resources if resource.name]
    if len(named) > 1:
        shown = ", ".join(f"{short_path(r.name)} {duration(r.ns)}" for r in named[:RESOURCES_SHOWN])
        more = f" and {len(named) - RESOURCES_SHOWN} more" if len(named) > RESOURCES_SHOWN else ""
        yield f"  on {shown}{more}"
    if one.kind != "saturation":
        yield f"  itself: {_ledger(one.ledger)}"
        yield f"  its {count(one.stalls, 'stall')}: {_ledger(one.stalls_ledger)}"
    if one.what_if is not None and one.what_if.stall_wall_share is not None:
        share, p99 = percent(one.what_if.stall_wall_share), duration(one.what_if.p99_ns)
        yield f"  without it: stalls take {share} of the time, p99 of iterations {p99}"


def _ledger(parts: Mapping[Cause, int]) -> str:
    """Causes with their shares, which make 100 % together."""
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{cause} {percent(ns / total)} ({duration(ns)})" for cause, ns in ordered)


def _pool(one: Pool) -> str:
    bound = one.most_threads if one.most_threads is not None and one.most_threads < FEW_THREADS else None
    contend = f"; over {bound:,.0f} would contend for the GIL" if bound is not None else ""
    return (
        f"A thread pool for it: {one.rate_per_s:.3g} calls a second of {duration(one.wait_ns + one.compute_ns)} each "
        f"need {count(one.threads, 'thread')}{contend}; {percent(one.p_queued)} of the calls then wait for a thread, "
        f"{duration(one.mean_queue_ns)} on average. {_default(one)} Calls may come faster once nothing stalls."
    )


def _default(one: Pool) -> str:
    """What would become of the executor where the calls go if nobody says otherwise."""
    if one.executor is None:
        seen = f"The process used no default executor; Python gives it {one.default_threads} threads at least"
    else:
        seen = f"The default executor may have {count(one.default_threads, 'thread')}"
    busy = f"{percent(min(1.0, one.default_utilization))} busy with this"
    if one.new_queue:
        waits = "all of the calls would wait" if one.default_p_queued >= 1 else f"{percent(one.default_p_queued)} wait"
        return f"{seen}: {busy}, {waits}, so the pool becomes the new queue. Give them a pool of their own."
    return f"{seen}: {busy}, with room for it."


def _executors(executors: Sequence[Executor]) -> Lines:
    """The thread pools as they are."""
    if not executors:
        return
    yield ""
    head = f"{'threads':>8}{'of':>9}{'busy':>7}{'queued':>9}{'deepest':>9}"
    yield Text(f"{head}   thread pool, as it was", style="bold", no_wrap=True)
    for one in executors:
        most = _UNKNOWN if one.most_threads is None else f"{one.most_threads:,}"
        looks = max(1, one.looks)
        row = (
            f"{one.threads:>8,}{most:>9}{one.busy / looks:>7.1f}{percent(one.queued_looks / looks):>9}{one.deepest:>9,}"
        )
        yield Text(f"{row}   {one.name}{' (default)' if one.is_default else ''}", no_wrap=True)
    yield "  busy: threads at work, on average. Queued: the share of looks that met calls waiting for a thread."


def _delays(delays: Sequence[HandlerDelay], width: int) -> Lines:
    if not delays:
        return
    yield ""
    head = f"{'took':>9}{'inflicted':>11}{'suffered':>10}{'calls':>9}   handler"
    yield Text(head, style="bold", no_wrap=True)
    for one in delays[:HANDLERS_SHOWN]:
        calls = _UNKNOWN if one.calls is None else f"{one.calls:,}"
        row = f"{duration(one.own_ns):>9}{_time(one.inflicted_ns):>11}{_time(one.suffered_ns):>10}{calls:>9}   "
        yield Text(row + fitted(one.handler.name, width - len(row)), no_wrap=True)
    yield (
        "  took: of stalls, itself. Inflicted, suffered: delay of calls behind stalls of other handlers, all together, "
        "if calls become ready at random moments; which call waited for which stall is not recorded."
    )


def _time(ns: int | None) -> str:
    return _UNKNOWN if ns is None else duration(ns)
