"""The culprits for people: a table of two lines each, what they are together, and what to do about the worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from stallscope.analysis.findings import Culprit, Findings
from stallscope.analysis.sites import bare
from stallscope.report import frames
from stallscope.report.words import MEANING, count, duration, fitted, percent, place, short_path

SHOWN = 4
"""Culprits in the table; -v has more, and the JSON report all."""
SHOWN_VERBOSE = 20
CAUSES_SHOWN = 3
WORTH_TELLING = 0.01
"""Of stall time: smaller parts are for -v."""
NEXT_SHOWN = 2
"""Culprits after the worst whose code is shown as well, in a line each."""
HEAD = f"{'#':>3} {'share':>7} {'stalls':>7} {'longest':>8}  {'cause':<16}  "
_SHOWN_HANDLERS = 3


def draw(findings: Findings, width: int, shown: int = SHOWN) -> Iterator[str | Text]:
    """The lines of the table, and of the remedies; without stalls the sentence that says so."""
    yield ""
    if not findings.culprits:
        yield from _no_stall(findings)
        return
    yield Text(f"{HEAD}call", style="bold", no_wrap=True)
    for one in findings.culprits[:shown]:
        yield from rows(one, width)
    yield from _rest(findings, shown)
    yield from _causes(findings)
    yield from _remedies(findings, width)


def call_of(one: Culprit) -> str:
    """A culprit's call with what it touched: ``write(access.log)``; empty where no call is to blame."""
    if one.kind != "site":
        return "many short handlers" if one.kind == "pile-up" else "the loop never waits"
    if one.syscall is None or (one.syscall == "gil" and not one.detail):
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


def rows(one: Culprit, width: int) -> Iterator[Text]:
    """The two lines of one culprit."""
    numbers = f"{one.rank:>3} {percent(one.share):>7} {one.stalls:>7,} {duration(one.longest_ns):>8}"
    if one.kind == "saturation":
        numbers = f"{one.rank:>3} {'':>7} {'':>7} {'':>8}"
    cause = one.cause if one.kind == "site" else one.kind
    call = fitted(f"{call_of(one)}{_how_many(one)}", width - len(HEAD))
    yield Text.assemble(numbers, "  ", (f"{cause:<16}", "red"), "  ", call, no_wrap=True)
    where = _where(one)
    if where:
        yield Text(fitted(f"{'':4}{where}", width), style="dim", no_wrap=True)


def _how_many(one: Culprit) -> str:
    """Many short calls in each stall are told from one long one."""
    return f" x{one.calls_per_stall:.0f}" if one.calls_per_stall >= 2 else ""


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


def _rest(findings: Findings, shown: int) -> Iterator[str]:
    more = findings.culprits[shown:]
    if more:
        share = percent(sum(one.share for one in more))
        yield f"    {share:>7} {count(len(more), 'more culprit')} (--json lists them)"
    others = findings.others
    if others and (shown > SHOWN or others.share >= WORTH_TELLING):
        yield f"    {percent(others.share):>7} {count(others.culprits, 'other')}, each under 0.5 %"


def _causes(findings: Findings) -> Iterator[str]:
    """What the loop does in its stalls, in words."""
    worth = [one for one in findings.causes if one.share >= WORTH_TELLING][:CAUSES_SHOWN]
    told = [f"{percent(one.share)} {MEANING[one.cause]}" for one in worth]
    if told:
        yield f"In its stalls the loop: {'; '.join(told)}."


def _remedies(findings: Findings, width: int) -> Iterator[str | Text]:
    known = [one for one in findings.culprits if one.advice is not None]
    first = findings.gains[1].culprits if findings.gains else ()
    worst = next((one for one in known if one.rank in first), next(iter(known), None))
    if worst is None:
        return
    yield ""
    yield Text(f"Mend #{worst.rank} first{_gain(findings)}", style="bold")
    yield from _place(worst, width)
    if worst.advice is not None:
        yield f"  {worst.advice.summary}"
        for line in worst.advice.code.splitlines():
            yield Text(f"      {line}", style="green", no_wrap=True)
    yield from _next([one for one in known if one is not worst], width)


def _place(worst: Culprit, width: int) -> Iterator[str | Text]:
    """The text of the line, and the way to it."""
    if worst.location is None:
        return
    source = frames.source_line(worst.location)
    if source:
        told = Text(f"  > {place(worst.location.file, worst.location.line)}  {source}", no_wrap=True)
        told.truncate(width, overflow="ellipsis")
        yield told
    way = frames.chain(worst.stack)
    if " > " in way:
        yield f"    by {way}"


def _next(others: Sequence[Culprit], width: int) -> Iterator[str | Text]:
    """The first line of code for the culprits that follow; where there is none to write, what to do instead."""
    for one in others[:NEXT_SHOWN]:
        if one.advice is not None:
            line = Text.assemble(
                f"  then #{one.rank}: ", ((one.advice.code or one.advice.summary).splitlines()[0], "green")
            )
            line.no_wrap = True
            line.truncate(width, overflow="ellipsis")
            yield line


def _gain(findings: Findings) -> str:
    """What is left without the worst, and without all that have a remedy."""
    left = [
        (percent(one.left.stall_wall_share), one.culprits)
        for one in findings.gains
        if one.left.stall_wall_share is not None
    ]
    told = [
        f"{share} of the time then" if number == 1 else f"{share} without {_ranks(ranks)}"
        for number, (share, ranks) in enumerate(left)
        if number
    ]
    return f": stalls take {', '.join(told)}" if told else ""


def _ranks(ranks: Sequence[int]) -> str:
    """For example ``#1``, ``#1 to #3``, ``#1 and #3``."""
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"#{ranks[0]} to #{ranks[-1]}"
    return " and ".join(f"#{rank}" for rank in ranks) if len(ranks) < 3 else f"the {len(ranks)} with a remedy"
