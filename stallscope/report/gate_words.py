"""How the gate's reports put things, the same in each of them."""

from __future__ import annotations

from collections.abc import Sequence

from stallscope.analysis.sites import within_handler
from stallscope.gate.sites import Site
from stallscope.gate.verdict import Figure, NewCulprit, Result, Verdict
from stallscope.report.words import count, duration, fitted, percent
from stallscope.report.words import place as frame_place


def headline(verdict: Verdict) -> str:
    """The verdict in one line."""
    return f"{verdict.outcome}: {_why(verdict)}"


def _why(verdict: Verdict) -> str:
    told = [one for one in verdict.results if one.outcome == verdict.outcome]
    if verdict.outcome == "pass":
        against = count(verdict.baseline_runs, "run") if verdict.baseline_runs else "no baseline"
        return f"nothing is worse ({count(verdict.runs, 'run')} against {against})"
    unshown = [_could_show(one) for one in verdict.results if one.outcome == "inconclusive"]
    if verdict.outcome == "inconclusive":
        return "; ".join(unshown)
    found = [brief(one, verdict) for one in told]
    return "; ".join([*found, *unshown] if verdict.outcome == "warn" else found)


def _could_show(result: Result) -> str:
    values = {one.name: one for one in result.figures}
    ratio, needed = values.get("smallest ratio it could have shown"), values.get("which takes stalls")
    if needed is None:
        return f"{result.rule}: {figures(result)}" if result.figures else f"{result.rule}: {result.why}"
    share = values.get("of all iterations")
    of_all = f", {number(share)} of the iterations" if share else ""
    grown = f"a stall rate {number(ratio)} the baseline's" if ratio else "stalls where the baseline has none"
    return f"too little data: no less than {grown} could have been shown ({count(int(needed.value), 'stall')}{of_all})"


def brief(result: Result, verdict: Verdict) -> str:
    """What one rule found, in a few words."""
    if result.rule == "new culprits" and not verdict.new.culprits:
        return f"perhaps a {new(verdict.new.unsure[0], 16)} at {place(verdict.new.unsure[0])}"
    if result.rule == "new culprits":
        first, others = verdict.new.culprits[0].site, len(verdict.new.culprits) - 1
        more = f" and {others} more" if others else ""
        return f"{new(first, 16)} at {place(first)}{more}"
    values = {one.name: one for one in result.figures}
    if "expected from the baseline" in values:
        stalls, expected = values["stalls"], values["expected from the baseline"]
        return f"{count(int(stalls.value), 'stall')} where {number(expected)} were expected"
    figure = result.figures[0] if result.figures else None
    limit = f" (limit {number(figure, figure.limit)})" if figure and figure.limit is not None else ""
    who = f" ({result.why})" if result.why else ""
    return f"{result.rule}{who} {number(figure)}{limit}" if figure else f"{result.rule}{who}"


def number(figure: Figure | None, value: float | None = None) -> str:
    """A figure's value with its unit; `value` instead of its own, such as its limit."""
    if figure is None:
        return ""
    shown = figure.value if value is None else value
    if figure.unit == "ns":
        return duration(shown)
    if figure.unit == "share":
        return percent(shown)
    if figure.unit == "times":
        return f"{shown:.3g} times"
    if figure.unit == "per minute":
        return f"{shown:.3g} a minute"
    return f"{shown:.2g}" if figure.unit == "p" else f"{shown:,.0f}" if shown == int(shown) else f"{shown:,.1f}"


def figures(result: Result, width: int | None = None) -> str:
    """All figures of a rule, with their limits."""
    parts = [
        f"{one.name} {number(one)}" + (f" (limit {number(one, one.limit)})" if one.limit is not None else "")
        for one in result.figures
    ]
    text = "; ".join(filter(None, [", ".join(parts), result.why]))
    return fitted(text, width) if width else text


def place(site: Site) -> str:
    """``file:line``, as the project knows the file."""
    return f"{site.place.file}:{site.line}" if site.line else site.place.file


BLOCKS, COMPUTES = "new-blocking-call", "new-long-computation"


def kind(site: Site) -> str:
    """What machines know such a culprit by."""
    return COMPUTES if site.computes else BLOCKS


def new(site: Site, room: int = 40) -> str:
    """What kind of new culprit it is."""
    return "new place that computes too long" if site.computes else f"new blocking call {call_words(site, room)}"


def call_words(site: Site, room: int = 40) -> str:
    """For example ``openat(/etc/hosts)``."""
    if site.computes:
        return site.call.name
    name = site.call.resource.name if site.call.resource else ""
    return f"{site.call.name}({fitted(name, room)})"


def stack_lines(site: Site) -> list[str]:
    """The frames from the call down to the handler that made it, innermost first."""
    return [f"{frame_place(one.file, one.line)} {one.function}" for one in within_handler(site.stack)]


def seen(site: Site) -> str:
    """How often, and how long where that is known."""
    if site.computes:
        return f"{count(site.hits, 'stall')}, longest {duration(site.longest_ns)}"
    return count(site.hits, "call") + (f", longest {duration(site.longest_ns)}" if site.longest_ns else "")


def message(one: NewCulprit) -> str:
    """A new culprit in one paragraph: for annotations and machines that show one text."""
    site = one.site
    advice = f" {one.advice.summary}" if one.advice else ""
    expired = f" Its allowance ({one.expired.reason}) expired on {one.expired.until}." if one.expired else ""
    handler = f" in handler {site.handler.name}" if site.handler else ""
    what = new(site)
    return (
        f"{what[0].upper()}{what[1:]} in {site.place.function}{handler}, on the event loop ({seen(site)}),"
        f" in no run of the baseline.{expired}{advice}"
    )


def accept_hint(sites: Sequence[Site]) -> str:
    """How to accept them."""
    pattern = ":".join(sites[0].place[:3])
    return f'accept it: stallscope baseline accept "{pattern}" --reason "..."'
