"""One loop for people: what is wrong with it in words, and its histogram with its modes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from stallscope.analysis.findings import Findings, LoopFindings, ModeCause
from stallscope.report import histogram
from stallscope.report.page import Lines
from stallscope.report.words import duration, percent, verdict_of

FILLED_BY = 3
"""Culprits and causes named for each mode."""
WORTH_TELLING = 0.01
"""Of a mode's stall time."""


def verdict(one: LoopFindings, threshold_ns: int) -> Lines:
    """How much of the time it stood still, and what whoever came then felt."""
    saturated = "; SATURATED: it never waits" if one.saturated else ""
    yield Text(f"{name(one)}: {stalls(one, threshold_ns)}{saturated}", style="bold")
    felt = one.arrival
    if felt is not None and one.stall_count:
        yield (
            f"  Meanwhile nobody is served: who comes at a random moment meets a stall with a chance of "
            f"{percent(felt.p_wait_over_threshold)}, and waits {duration(felt.mean_wait_ms * 1e6)} on average, "
            f"{duration(felt.p99_wait_ms * 1e6)} at p99."
        )


def draw(findings: Findings, most: int, *, verbose: bool) -> Lines:
    """The histogram of each of the worst `most` loops, whole where `verbose`."""
    for one in findings.loops[:most]:
        if one is findings.loops[0] or one.stall_count:
            yield ""
            yield from _figures(one, verbose)
            yield from (Text(line, no_wrap=True) for line in histogram.draw(one, whole=verbose))
            for cause in one.mode_causes:
                yield from _mode(cause, one)


def _figures(one: LoopFindings, verbose: bool) -> Lines:
    if one.percentiles is None:
        if not one.stall_count:  # a source may tell of stalls alone
            yield "No iteration ended while the loop was watched."
        return
    p = one.percentiles
    lengths = f"p50 {duration(p.p50_ns)}, p90 {duration(p.p90_ns)}, p99 {duration(p.p99_ns)}"
    yield Text(f"{one.iterations:,} iterations: {lengths}; {_shape(one)}", style="bold")
    if verbose:
        yield f"  {whole_name(one)}: p99.9 {duration(p.p99_9_ns)}{_busy(one)}"
        yield f"  {verdict_of(one.modality)}"
    if one.modality.note:
        yield f"  {one.modality.note}"


def _shape(one: LoopFindings) -> str:
    return "too few to judge" if one.modality.shape == "too-few" else one.modality.shape


def _busy(one: LoopFindings) -> str:
    parts = [] if one.utilization is None else [f", busy {percent(one.utilization)} of {duration(one.wall_ns)}"]
    if one.zero_wait_share is not None and one.zero_wait_share > 0.5:
        parts.append(f", had work left after {percent(one.zero_wait_share)} of them")
    return "".join(parts)


def _mode(cause: ModeCause, one: LoopFindings) -> Lines:
    mode, valley = one.modality.modes[cause.mode - 1], one.modality.valleys[cause.mode - 2]
    parts = [
        f"{percent(mode.share)} of iterations and {percent(cause.busy_share)} of busy time",
        _list([(f"#{rank}", part) for rank, part in cause.culprits]),
        _list(cause.causes),
    ]
    place = f"near {duration(mode.peak_ns)}, above a valley at {duration(valley.threshold_ns)}"
    yield f"  mode {cause.mode} {place}: {'; '.join(filter(None, parts))}"


def _list(parts: Sequence[tuple[str, float]]) -> str:
    """What fills a mode, less what hardly counts."""
    worth = [f"{percent(part)} {name}" for name, part in parts if part >= WORTH_TELLING]
    return ", ".join(worth[:FILLED_BY]) + (f", {len(worth) - FILLED_BY} more" if len(worth) > FILLED_BY else "")


def name(one: LoopFindings) -> str:
    """For example ``loop 1 (asyncio, pid 42)``."""
    loop = one.loop
    return f"loop {loop.id} ({', '.join(filter(None, [loop.kind, f'pid {loop.pid}' if loop.pid else loop.name]))})"


def whole_name(one: LoopFindings) -> str:
    """With the thread, and the loop's class."""
    return f"{name(one)} {one.loop.name}" if one.loop.pid else name(one)


def stalls(one: LoopFindings, threshold_ns: int) -> str:
    """How many, how long together and at most, and what part of the time they are."""
    threshold = duration(threshold_ns)
    if not one.stall_count:
        return f"no stall of {threshold} or more"
    longest = f", the longest {duration(one.percentiles.max_ns)}" if one.percentiles else ""
    share = f"stalled {percent(one.stall_wall_share)} of the time: " if one.stall_wall_share is not None else ""
    many = f"{one.stall_count:,} stalls" if one.stall_count > 1 else "1 stall"
    return f"{share}{many} of {threshold} or more, {duration(one.stall_ns)} in all{longest}"
