"""What ``-v`` adds for people: the causes of all stalls, every culprit's remedy, who delayed whom, thread pools."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from stallscope.analysis.findings import Culprit, Findings, HandlerDelay, Pool
from stallscope.analysis.pools import DEFAULT_LEAST
from stallscope.report.culprit_table import call_of
from stallscope.report.page import Lines
from stallscope.report.words import count, duration, fitted, percent, place

HANDLERS_SHOWN = 10
FEW_THREADS = 100
"""A bound above it bounds nothing."""
_UNKNOWN = "unknown"


def draw(findings: Findings, width: int) -> Lines:
    """The sections, each after an empty line; none without stalls."""
    yield from _causes(findings)
    for one in findings.culprits:
        yield from _culprit(one)
    yield from _delays(findings.delays, width)


def _causes(findings: Findings) -> Lines:
    if not findings.causes:
        return
    yield ""
    yield Text(
        f"{'cause':<18}{'share':>8}{'time':>10}{'stalls':>9}   of all recorded stalls", style="bold", no_wrap=True
    )
    for one in findings.causes:
        yield Text(f"{one.cause:<18}{percent(one.share):>8}{duration(one.ns):>10}{one.stalls:>9,}", no_wrap=True)
    if findings.missing:
        yield f"  {count(len(findings.missing), 'thing')} could not be seen (at the end), which may hide a cause"


def _culprit(one: Culprit) -> Lines:
    yield ""
    where = f" at {place(one.location.file, one.location.line)}" if one.location else ""
    yield Text(f"#{one.rank} {call_of(one) or one.cause}{where}", style="bold")
    if len(one.ledger) > 1:
        yield f"  {', '.join(f'{cause} {duration(ns)}' for cause, ns in one.ledger.items())}"
    if one.advice is not None:
        for advice in (one.advice, *one.advice.also):
            yield f"  {advice.summary}"
            for line in advice.code.splitlines():
                yield Text(f"      {line}", style="green", no_wrap=True)
            if advice.source:
                yield Text(f"      see {advice.source}", style="dim", no_wrap=True)
    if one.pool is not None:
        yield f"  {_pool(one.pool)}"


def _pool(one: Pool) -> str:
    bound = one.most_threads if one.most_threads is not None and one.most_threads < FEW_THREADS else None
    contend = f"; over {bound:,.0f} would contend for the GIL" if bound is not None else ""
    told = (
        f"A thread pool for it: {one.rate_per_s:.3g} calls a second of {duration(one.wait_ns + one.compute_ns)} each "
        f"need {count(one.threads, 'thread')}{contend}; {percent(one.p_queued)} of the calls then wait for a thread."
    )
    if one.new_queue:
        told += (
            f" The pool becomes the new queue: the default executor may have {DEFAULT_LEAST} threads alone, "
            f"{percent(one.default_utilization)} busy with this."
        )
    return f"{told} What the executor holds at present is not recorded, and calls may come faster once nothing stalls."


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
