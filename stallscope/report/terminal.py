"""The report for people: one screen, readable at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from stallscope.analysis.findings import Findings, LoopFindings, StallFindings
from stallscope.report import culprit_table, histogram
from stallscope.report import verbose as details
from stallscope.report.page import Lines, fitting, print_lines
from stallscope.report.words import count, duration, percent, place, verdict_of

FULL_LOOPS = 3
"""Loops with a section of their own where there is room (-v); else one, and the rest have a line each."""
HUNG_SHOWN = 5
NO_ITERATION = "  no iteration ended while it was watched"
PATTERNS_SHOWN = 2


def render(
    findings: Findings, *, width: int = 80, colour: bool = False, all_stalls: bool = False, verbose: bool = False
) -> str:
    """The report as text, `width` columns wide; `colour` adds terminal escapes, `all_stalls` a line for each stall,
    `verbose` the causes, every remedy, and who delayed whom."""
    columns = fitting(width)
    return print_lines(_report(findings, columns, all_stalls, verbose), columns, colour)


def _report(findings: Findings, width: int, all_stalls: bool, verbose: bool) -> Lines:
    yield from _header(findings)
    yield from _hung(findings)
    yield from _loops(findings, FULL_LOOPS if verbose else 1)
    yield from culprit_table.draw(findings, width)
    yield from _patterns(findings)
    if verbose:
        yield from details.draw(findings, width)
    if all_stalls:
        yield from _every_stall(findings, width)
    yield from _footer(findings)


def _patterns(findings: Findings) -> Lines:
    if findings.patterns:
        yield ""
    for one in findings.patterns[:PATTERNS_SHOWN]:
        yield f"{one.kind}: {one.sentence}."


def _every_stall(findings: Findings, width: int) -> Lines:
    """A line for each stall: when it began, how long it was, the culprit's number, the handler, the ledger."""
    yield ""
    yield Text(f"{'at':>9} {'stall':>8} {'#':>3}  handler: ledger", style="bold", no_wrap=True)
    for one in findings.stalls:
        at_s = (one.stall.start_ns - findings.recording.started_ns) / 1e9
        parts = sorted(one.ledger.items(), key=lambda item: -item[1])
        handler = f"{one.handler.name}: " if one.handler else ""
        told = ", ".join(f"{cause} {duration(ns)}" for cause, ns in parts)
        line = f"{at_s:>7.3f} s {duration(one.stall.duration_ns):>8} {one.culprit or '-':>3}  {handler}{told}"
        row = Text(line, no_wrap=True)
        row.truncate(width, overflow="ellipsis")
        yield row


def _header(findings: Findings) -> Lines:
    recording = findings.recording
    watched = duration(findings.wall_ns) if findings.wall_ns else ""
    facts = filter(None, [watched, _processes(findings), f"stalls from {duration(findings.threshold_ns)}"])
    yield Text(f"{recording.path}: {', '.join(facts)}", style="bold")
    blind = f", {count(len(findings.missing), 'thing')} not seen (see the end)" if findings.missing else ""
    yield f"fidelity: {recording.fidelity.level}{blind}"


def _processes(findings: Findings) -> str:
    processes = findings.recording.processes
    if len(processes) == 1:
        one = processes[0]
        if not one.pid:
            return one.program
        return " ".join(filter(None, [f"process {one.pid}", f"({one.runtime})" if one.runtime else ""]))
    return f"{len(processes)} processes"


def _hung(findings: Findings) -> Lines:
    hung = [one for one in findings.stalls if not one.stall.finished]
    for one in hung[:HUNG_SHOWN]:
        yield Text(_hung_line(findings, one), style="bold red")
    if len(hung) > HUNG_SHOWN:
        yield f"and {len(hung) - HUNG_SHOWN} more still in progress"


def _hung_line(findings: Findings, one: StallFindings) -> str:
    culprit = next((c for c in findings.culprits if c.rank == one.culprit), None)
    what = where = ""
    if culprit is not None and culprit.kind == "site":
        what = f" in {culprit_table.call_of(culprit) or culprit.cause}"
        where = f" at {place(culprit.location.file, culprit.location.line)}" if culprit.location else ""
    return f"hung {duration(one.stall.duration_ns)}{what}{where}, still in progress when recording ended"


def _loops(findings: Findings, most: int) -> Lines:
    """A section for each of the worst `most` loops, a line for others."""
    loops = findings.loops
    if not loops:
        yield ""
        yield "No event loop was seen: the program ran none, or it ended before its first iteration."
        return
    full = [one for one in loops[:most] if one is loops[0] or one.stall_count]
    for one in full:
        yield ""
        yield from _loop(one, findings.threshold_ns)
        yield from _mode_causes(one, findings)
    rest = loops[len(full) :]
    if rest:
        yield ""
    for one in rest[: 2 * FULL_LOOPS]:
        iterations = f"{count(one.iterations, 'iteration')}, " if one.iterations or not one.stall_count else ""
        yield f"{_name(one)}: {iterations}{_stalls(one, findings.threshold_ns, 'stall')}"
    if len(rest) > 2 * FULL_LOOPS:
        yield f"and {len(rest) - 2 * FULL_LOOPS} more loops with fewer stalls (--json lists all)"


def _loop(one: LoopFindings, threshold_ns: int) -> Lines:
    yield Text(f"{_name(one)}: {verdict_of(one.modality)}", style="bold")
    if one.modality.note:
        yield f"  {one.modality.note}"
    if one.percentiles is None:
        yield f"  stalls      {_stalls(one, threshold_ns)}" if one.stall_count else NO_ITERATION
        return
    p = one.percentiles
    yield (
        f"  iterations  {one.iterations:,}: p50 {duration(p.p50_ns)}, p90 {duration(p.p90_ns)}, "
        f"p99 {duration(p.p99_ns)}, p99.9 {duration(p.p99_9_ns)}"
    )
    yield f"  stalls      {_stalls(one, threshold_ns)}"
    if one.utilization is not None:
        yield f"  busy        {percent(one.utilization)} of {duration(one.wall_ns)}{_saturation(one)}"
    if one.arrival is not None:
        felt = one.arrival
        yield (
            f"  an arrival  meets a stall with a chance of {percent(felt.p_wait_over_threshold)}, waits "
            f"{duration(felt.mean_wait_ms * 1e6)} on average, p99 {duration(felt.p99_wait_ms * 1e6)}"
        )
    yield from (Text(line, no_wrap=True) for line in histogram.draw(one))


def _mode_causes(one: LoopFindings, findings: Findings) -> Lines:
    for cause in one.mode_causes:
        mode = one.modality.modes[cause.mode - 1]
        reach = f"{duration(mode.lo_ns)} to {duration(mode.hi_ns)}"
        shares = f"{percent(mode.share)} of iterations, {percent(cause.busy_share)} of busy time"
        line = f"  mode {cause.mode}, {reach}: {shares}"
        culprit = next((c for c in findings.culprits if c.rank == cause.culprit), None)
        if culprit is not None:
            what = culprit_table.call_of(culprit) or culprit.cause
            line += f"; {percent(cause.culprit_share)} of it is #{culprit.rank} {what}"
        yield line


def _name(one: LoopFindings) -> str:
    loop = one.loop
    known = filter(None, [loop.kind, f"pid {loop.pid}" if loop.pid else "", loop.name])
    return f"loop {loop.id} ({', '.join(known)})"


def _stalls(one: LoopFindings, threshold_ns: int, noun: str = "") -> str:
    if not one.stall_count:
        return f"no stall of {duration(threshold_ns)} or more"
    longest = f", longest {duration(one.percentiles.max_ns)}" if one.percentiles else ""
    wall = f" = {percent(one.stall_wall_share)} of wall time" if one.stall_wall_share is not None else ""
    number = count(one.stall_count, noun) if noun else f"{one.stall_count:,}"
    return f"{number}, {duration(one.stall_ns)} in all{wall}{longest}"


def _saturation(one: LoopFindings) -> str:
    if one.saturated:
        return "; SATURATED: it never waits"
    if one.zero_wait_share is not None and one.zero_wait_share > 0.5:
        return f"; had work left after {percent(one.zero_wait_share)} of its iterations"
    return ""


def _footer(findings: Findings) -> Iterable[str | Text]:
    notes = findings.recording.notes
    if findings.missing or notes:
        yield ""
    for note in notes:
        yield f"note: {note}"
    for one in findings.missing:
        yield f"not seen: {one.what} ({one.why})"
