"""The report for people: one screen, readable at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from stallscope.analysis.findings import Findings, StallFindings
from stallscope.report import culprit_table, loop_section
from stallscope.report import verbose as details
from stallscope.report.page import Lines, fitting, print_lines
from stallscope.report.words import count, duration, place

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
    yield from _verdicts(findings, FULL_LOOPS if verbose else 1)
    yield from culprit_table.draw(findings, width, culprit_table.SHOWN_VERBOSE if verbose else culprit_table.SHOWN)
    yield from _patterns(findings)
    yield from loop_section.draw(findings, FULL_LOOPS if verbose else 1, verbose=verbose)
    if verbose:
        yield from details.draw(findings, width)
    if all_stalls:
        yield from _every_stall(findings, width)
    yield from _footer(findings, verbose)


def _patterns(findings: Findings) -> Lines:
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
    blind = f" ({count(len(findings.missing), 'thing')} not seen, see the end)" if findings.missing else ""
    facts = filter(None, [watched, _processes(findings), f"fidelity {recording.fidelity.level}{blind}"])
    yield Text(f"{recording.path}: {', '.join(facts)}", style="bold")


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


def _verdicts(findings: Findings, most: int) -> Lines:
    """What is wrong, in words, with each of the worst `most` loops; a line for others."""
    loops = findings.loops
    if not loops:
        yield ""
        yield "No event loop was seen: the program ran none, or it ended before its first iteration."
        return
    full = [one for one in loops[:most] if one is loops[0] or one.stall_count]
    for one in full:
        yield ""
        yield from loop_section.verdict(one, findings.threshold_ns)
    rest = loops[len(full) :]
    for one in rest[: 2 * FULL_LOOPS]:
        told = loop_section.stalls(one, findings.threshold_ns)
        iterations = f"{count(one.iterations, 'iteration')}, " if one.iterations or not one.stall_count else ""
        yield f"{loop_section.name(one)}: {iterations}{told}"
    if len(rest) > 2 * FULL_LOOPS:
        yield f"and {len(rest) - 2 * FULL_LOOPS} more loops with fewer stalls (--json lists all)"


def _footer(findings: Findings, verbose: bool) -> Iterable[str | Text]:
    notes = findings.recording.notes
    if notes or findings.missing:
        yield ""
    for note in notes:
        yield f"note: {note}"
    for one in findings.missing:
        yield f"not seen: {one.what} ({one.why})"
    if findings.culprits and not verbose:
        yield "more: -v (all remedies with their sources, causes, victims, thread pools)"
