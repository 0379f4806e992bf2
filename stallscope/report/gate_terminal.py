"""The gate's verdict for people: one line, then each rule, then each new culprit."""

from __future__ import annotations

from rich.text import Text

from stallscope.gate.verdict import NewCulprit, Outcome, Result, Verdict
from stallscope.report.gate_words import accept_hint, call_words, figures, headline, place, seen, stack_lines
from stallscope.report.page import Lines, fitting, print_lines
from stallscope.report.words import fitted

FRAMES = 6
SHOWN = 10
_COLOURS: dict[Outcome, str] = {"fail": "bold red", "warn": "yellow", "inconclusive": "yellow", "pass": "green"}


def render(verdict: Verdict, *, width: int = 80, colour: bool = False) -> str:
    """The verdict as text, `width` columns wide; `colour` adds terminal escapes."""
    columns = fitting(width)
    return print_lines(_lines(verdict, columns), columns, colour)


def _lines(verdict: Verdict, width: int) -> Lines:
    yield Text(headline(verdict), style=_COLOURS.get(verdict.outcome, ""))
    yield ""
    for result in verdict.results:
        yield _rule(result)
    for one in verdict.new.culprits[:SHOWN]:
        yield ""
        yield from _culprit(one, width)
    if len(verdict.new.culprits) > SHOWN:
        yield f"and {len(verdict.new.culprits) - SHOWN} more (--json lists all)"
    if verdict.new.culprits:
        yield ""
        yield accept_hint([one.site for one in verdict.new.culprits])
    if verdict.new.unsure or verdict.new.untold or verdict.new.known or verdict.notes or verdict.missing:
        yield ""
    for site in verdict.new.unsure:
        yield f"perhaps new: {call_words(site)} at {place(site)} in {site.place.function} ({seen(site)})"
    for site in verdict.new.untold:
        yield (
            f"the baseline cannot tell of: {call_words(site)} at {place(site)} in {site.place.function} ({seen(site)});"
            " its recorder does not count such calls"
        )
    for site, allowance in verdict.new.known:
        until = f" until {allowance.until}" if allowance.until else ""
        yield f"accepted{until}: {call_words(site)} at {place(site)} in {site.place.function}: {allowance.reason}"
    for note in verdict.notes:
        yield f"note: {note}"
    for missing in verdict.missing:
        yield f"not seen: {missing.what} ({missing.why})"


def _rule(result: Result) -> Text:
    return Text.assemble(
        (f"  {result.outcome:<13}", _COLOURS.get(result.outcome, "dim")), f"{result.rule}: {figures(result)}"
    )


def _culprit(one: NewCulprit, width: int) -> Lines:
    site = one.site
    yield Text(f"new: {call_words(site)} at {place(site)} in {site.place.function}", style="bold")
    handler = f", in handler {site.handler.name}" if site.handler else ""
    yield f"  {seen(site)}{handler}"
    if one.expired:
        yield f"  its allowance expired on {one.expired.until}: {one.expired.reason}"
    for line in stack_lines(site)[:FRAMES]:
        yield Text(fitted(f"    {line}", width), style="dim", no_wrap=True)
    if one.advice:
        yield f"  {one.advice.summary}"
        yield from (Text(f"    {line}", no_wrap=True) for line in one.advice.code.splitlines())
