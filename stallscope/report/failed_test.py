"""Why a test fails, as its report shows it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from stallscope.analysis.findings import Advice, Findings, Location
from stallscope.analysis.sites import location
from stallscope.gate.judge import advice_for
from stallscope.gate.sites import Site
from stallscope.recording.nouns import Stack
from stallscope.report import frames
from stallscope.report.culprit_table import call_of
from stallscope.report.gate_words import call_words
from stallscope.report.page import Lines, print_lines
from stallscope.report.words import count, duration, place

SHOWN = 3


def render(
    findings: Findings | None, longest_ns: int, limit_ns: int | None, blocking: Sequence[Site], width: int
) -> str:
    """The failure as text: the lines, the calls, the remedies."""
    lines: list[str | Text] = []
    if findings is not None:
        lines += _stalled(findings, longest_ns, limit_ns or 0, width)
    for site in blocking[:SHOWN]:
        lines += _blocking(site, width)
    if len(blocking) > SHOWN:
        lines.append(f"and {count(len(blocking) - SHOWN, 'more blocking call')}")
    return print_lines(lines, width, colour=False)


def _stalled(findings: Findings, longest_ns: int, limit_ns: int, width: int) -> Lines:
    several = f"; {len(findings.stalls)} times longer than that" if len(findings.stalls) > 1 else ""
    yield f"The event loop stood still for {duration(longest_ns)}, and may for {duration(limit_ns)}{several}."
    for one in findings.culprits[:SHOWN]:
        if one.cause in ("unexplained", "descheduled"):
            continue
        where = f" at {place(one.location.file, one.location.line)} in {one.location.function}" if one.location else ""
        yield f"{call_of(one) or one.cause}{where}: {duration(one.ns)}"
        yield from _evidence(one.stack, one.location, one.advice, width)


def _blocking(site: Site, width: int) -> Lines:
    frame = location(site.stack)
    where = f"{site.place.file}:{site.line} in {site.place.function}"
    yield f"Blocking call {call_words(site)} on the event loop, at {where}"
    at = Location(frame.file, frame.line, frame.function) if frame else None
    yield from _evidence(site.stack, at, advice_for(site), width)


def _evidence(stack: Stack, at: Location | None, advice: Advice | None, width: int) -> Lines:
    """The stack with its lines of source, and the code to write instead."""
    for line in frames.lines(stack, at):
        told = Text(line, no_wrap=True)
        told.truncate(width, overflow="ellipsis")
        yield told
    if advice is not None:
        yield f"  {advice.summary}"
        yield from (Text(f"      {line}", no_wrap=True) for line in advice.code.splitlines())
