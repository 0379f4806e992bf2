"""The culprits for people: a table of two lines each, then the worst of them in full."""

from __future__ import annotations

import linecache
from collections.abc import Iterator

from rich.text import Text

from stallscope.analysis.findings import Culprit, Findings, Location, WhatIf
from stallscope.analysis.sites import bare, within_handler
from stallscope.recording.nouns import Frame
from stallscope.report.words import count, duration, fitted, percent, place, short_path

SHOWN = 8
"""Culprits in the table; the JSON report lists all."""
STACK_SHOWN = 6
_HEAD = f"{'#':>3} {'share':>7} {'stalls':>7} {'longest':>8}  {'cause':<16}  "
_SHOWN_HANDLERS = 3


def draw(findings: Findings, width: int) -> Iterator[str | Text]:
    """The lines of the table and of the top culprit; without stalls the sentence that says so."""
    yield ""
    if not findings.culprits:
        yield from _no_stall(findings)
        return
    yield Text(f"{_HEAD}call", style="bold", no_wrap=True)
    for one in findings.culprits[:SHOWN]:
        yield from _rows(one, width)
    yield from _rest(findings)
    yield from _top(findings, width)


def call_of(one: Culprit) -> str:
    """A culprit's call with what it touched: ``write(access.log)``; empty where no call is to blame."""
    if one.kind != "site":
        return "many short handlers" if one.kind == "pile-up" else "the loop never waits"
    if one.syscall is None:
        return ""
    return f"{one.syscall}({short_path(one.resource) if one.resource else one.detail})"


def _no_stall(findings: Findings) -> Iterator[str | Text]:
    counted = sum(one.stall_count for one in findings.loops)
    iterations = sum(one.iterations for one in findings.loops)
    if counted:
        yield Text(f"{count(counted, 'stall')} counted, but the recording has the details of none.", style="bold")
    elif iterations:
        threshold = duration(findings.threshold_ns)
        yield Text(f"No stall: none of {iterations:,} iterations took {threshold} or more.", style="bold green")
    else:
        yield Text("Nothing to judge: no iteration was recorded.", style="bold")


def _rows(one: Culprit, width: int) -> Iterator[Text]:
    numbers = f"{one.rank:>3} {percent(one.share):>7} {one.stalls:>7,} {duration(one.longest_ns):>8}"
    if one.kind == "saturation":
        numbers = f"{one.rank:>3} {'':>7} {'':>7} {'':>8}"
    cause = one.cause if one.kind == "site" else one.kind
    call = fitted(call_of(one), width - len(_HEAD))
    yield Text.assemble(numbers, "  ", (f"{cause:<16}", "red"), "  ", call, no_wrap=True)
    where = _where(one)
    if where:
        yield Text(fitted(f"{'':4}{where}", width), style="dim", no_wrap=True)


def _where(one: Culprit) -> str:
    if one.kind == "pile-up":
        names = [f"{time.handler.name} ({time.calls:,} calls)" for time in one.handlers[:_SHOWN_HANDLERS]]
        return ", ".join(names)
    handler = one.handler.name if one.handler else ""
    if one.location is None:
        return handler
    inside = "" if bare(handler) == bare(one.location.function) else f" in {one.location.function}"
    at = place(one.location.file, one.location.line)
    return f"{handler}  {at}{inside}" if handler else f"{at}{inside}"


def _rest(findings: Findings) -> Iterator[str]:
    more = findings.culprits[SHOWN:]
    if more:
        share = percent(sum(one.share for one in more))
        yield f"    {share:>7} {count(len(more), 'more culprit')} (--json lists them)"
    if findings.others:
        others = findings.others
        yield f"    {percent(others.share):>7} {count(others.culprits, 'other')}, each under 0.5 %"


def _top(findings: Findings, width: int) -> Iterator[str | Text]:
    top = next((one for one in findings.culprits if one.cause != "unexplained" or one.kind != "site"), None)
    if top is None:
        return
    yield ""
    yield Text(f"#{top.rank} {call_of(top) or top.cause}", style="bold")
    frames = within_handler(top.stack)[:STACK_SHOWN]
    for frame in frames:
        line = Text(f"  {_frame_line(frame, top.location)}", no_wrap=True)
        line.truncate(width, overflow="ellipsis")
        yield line
    if len(top.resources) > 1:
        named = [one for one in top.resources if one.name]
        shown = ", ".join(f"{short_path(one.name)} {duration(one.ns)}" for one in named[:_SHOWN_HANDLERS])
        yield f"  on {shown}{f' and {len(named) - _SHOWN_HANDLERS} more' if len(named) > _SHOWN_HANDLERS else ''}"
    yield from _remedy(findings, top)


def _frame_line(frame: Frame, location: Location | None) -> str:
    here = location is not None and (frame.file, frame.line) == (location.file, location.line)
    source = linecache.getline(frame.file, frame.line).strip()
    told = f"{place(frame.file, frame.line)} {frame.function}"
    return f"{'>' if here else ' '} {told}{f':  {source}' if source else ''}"


def _remedy(findings: Findings, top: Culprit) -> Iterator[str | Text]:
    if top.advice is not None:
        yield f"  {top.advice.summary}"
        for line in top.advice.code.splitlines():
            yield Text(f"      {line}", style="green", no_wrap=True)
    if top.what_if is not None:
        yield f"  Without it: {_without(findings, top.what_if)}"


def _without(findings: Findings, left: WhatIf) -> str:
    stalled = [one for one in findings.loops if one.stall_count]
    wall_ns = sum(one.wall_ns for one in stalled)
    p99 = f"p99 of iterations {duration(left.p99_ns)}{_now_p99(findings)}"
    if left.stall_wall_share is None or not wall_ns:
        return p99
    now = percent(min(1.0, sum(one.stall_ns for one in stalled) / wall_ns))
    return f"stalls take {percent(left.stall_wall_share)} of wall time (now {now}), {p99}"


def _now_p99(findings: Findings) -> str:
    stalled = [one for one in findings.loops if one.stall_count and one.percentiles]
    if len(stalled) != 1 or stalled[0].percentiles is None:
        return ""
    return f" (now {duration(stalled[0].percentiles.p99_ns)})"
