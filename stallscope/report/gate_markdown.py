"""The gate's verdict as Markdown: for a job's summary or a comment of a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stallscope.gate.verdict import NewCulprit, Verdict
from stallscope.report.gate_words import accept_hint, call_words, figures, headline, place, seen, stack_lines

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def render(verdict: Verdict) -> str:
    """The verdict as GitHub-flavoured Markdown."""
    return "\n".join(_lines(verdict)) + "\n"


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"### stallscope: {_plain(headline(verdict))}"
    yield ""
    yield "| | rule | figures |"
    yield "|---|---|---|"
    for result in verdict.results:
        yield f"| {result.outcome} | {_plain(result.rule)} | {_plain(figures(result))} |"
    for one in verdict.new.culprits:
        yield ""
        yield from _culprit(one)
    if verdict.new.culprits:
        yield ""
        yield _code(accept_hint([one.site for one in verdict.new.culprits]))
    notes = [f"perhaps new: {call_words(site)} at {place(site)} ({seen(site)})" for site in verdict.new.unsure]
    notes += [f"the baseline cannot tell of: {call_words(site)} at {place(site)}" for site in verdict.new.untold]
    notes += [f"accepted: {call_words(site)} at {place(site)}: {one.reason}" for site, one in verdict.new.known]
    notes += [*verdict.notes, *(f"not seen: {one.what} ({one.why})" for one in verdict.missing)]
    if notes:
        yield ""
        yield from (f"- {_plain(note)}" for note in notes)


def _culprit(one: NewCulprit) -> Iterator[str]:
    site = one.site
    what = (
        "**New place that computes too long**" if site.computes else f"**New blocking call** {_code(call_words(site))}"
    )
    yield f"{what} at {_code(place(site))} in {_code(site.place.function)}"
    handler = f", in handler {_code(site.handler.name)}" if site.handler else ""
    yield f"({seen(site)}{handler})"
    if one.expired:
        yield f"Its allowance expired on {one.expired.until}: {_plain(one.expired.reason)}"
    yield ""
    yield "<details><summary>stack</summary>"
    yield ""
    yield from (f"    {_one_line(line)}" for line in stack_lines(site))
    yield ""
    yield "</details>"
    if one.advice:
        yield ""
        yield _plain(one.advice.summary)
        yield ""
        yield from ("```python", *one.advice.code.splitlines(), "```") if one.advice.code else ()


def _plain(text: str) -> str:
    """Text that means nothing to Markdown: names of functions hold ``_`` and ``<locals>``."""
    return _SPECIAL.sub(r"\\\1", _one_line(text))


def _code(text: str) -> str:
    """Text in backticks, in more of them than it holds itself."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{_one_line(text)}{fence}"


def _one_line(text: str) -> str:
    """A file's name may hold a line's end, which would end the row or the code."""
    return _CONTROL.sub(" ", text)
