"""A comparison for people: what went away, what came, what grew."""

from __future__ import annotations

from rich.text import Text

from stallscope.analysis.compare import CauseChange, Comparison, CulpritChange, ModeChange, Score, Side
from stallscope.analysis.modes import Mode
from stallscope.report import side_by_side, totals_table
from stallscope.report.culprit_table import call_of
from stallscope.report.page import Lines, fitting, print_lines
from stallscope.report.prediction import removal_words
from stallscope.report.words import count, duration, fitted, percent, place

NAMES = ("before", "after")
SHOWN = 8
WORTH_SHOWING = 0.001
"""Of wall time: what took less on both sides is counted, not listed."""
_COLOURS = {"gone": "green", "shrunk": "green", "new": "red", "grown": "red"}


def render(comparison: Comparison, *, width: int = 80, colour: bool = False) -> str:
    """The comparison as text, `width` columns wide; `colour` adds terminal escapes."""
    columns = fitting(width)
    return print_lines(_lines(comparison, columns), columns, colour)


def _lines(found: Comparison, width: int) -> Lines:
    yield Text(f"before: {found.before.recording.path}", style="bold")
    yield Text(f"after:  {found.after.recording.path}", style="bold")
    if found.equal:
        yield "Both recordings hold the same: there is nothing to compare."
        return
    for note in found.notes:
        yield f"note: {note}"
    yield ""
    yield from side_by_side.figures(totals_table.rows(found.before.totals, found.after.totals), NAMES)
    yield ""
    yield from (Text(line, no_wrap=True) for line in side_by_side.draw(found.before.totals, found.after.totals, NAMES))
    yield ""
    for mode in found.modes:
        yield _mode(mode)
    yield from _culprits(found, width)
    yield from _causes(found)
    if found.score is not None and found.before.prediction is not None:
        yield ""
        yield from _score(found.score, removal_words(found.before.prediction.removal))


def _mode(one: ModeChange) -> str:
    if one.before and one.after:
        moved = f"{percent(one.before.share)} of iterations before, {percent(one.after.share)} after"
        return f"{_kind(one.before)} near {duration(one.before.peak_ns)} stayed: {moved}"
    mode = one.before or one.after
    if mode is None:  # a change has a side
        return ""
    side = "gone: it had" if one.before else "new: it has"
    return f"{_kind(mode)} near {duration(mode.peak_ns)} is {side} {percent(mode.share)} of iterations"


def _kind(mode: Mode) -> str:
    return "stall mode" if mode.stall_mode else "mode"


def _culprits(found: Comparison, width: int) -> Lines:
    listed = [one for one in found.culprits if _worth(one)]
    if not listed:
        return
    yield ""
    yield Text(f"{'':<8}{'before':>9}{'after':>9}  of wall time", style="bold", no_wrap=True)
    for one in listed[:SHOWN]:
        yield from _rows(one, width)
    more = len(found.culprits) - len(listed[:SHOWN])
    if more:
        yield f"and {count(more, 'smaller one')} (--json lists all)"


def _worth(one: CulpritChange) -> bool:
    shares = [side.wall_share for side in (one.before, one.after) if side]
    return any(share is None or share >= WORTH_SHOWING for share in shares)


def _rows(one: CulpritChange, width: int) -> Lines:
    side = one.after or one.before
    if side is None:  # a change has a side
        return
    what = call_of(side.culprit) or side.culprit.cause
    chance = "" if one.certain else " (may be chance: few stalls)"
    head = Text.assemble(
        (f"{one.change:<8}", _COLOURS.get(one.change, "")),
        f"{_share(one.before):>9}{_share(one.after):>9}  {fitted(what + chance, width - 28)}",
        no_wrap=True,
    )
    yield head
    where = side.culprit.location
    if where is not None:
        handler = f"{side.culprit.handler.name}  " if side.culprit.handler else ""
        yield Text(
            fitted(f"{'':8}{handler}{place(where.file, where.line)} in {where.function}", width),
            style="dim",
            no_wrap=True,
        )


def _share(side: Side | None) -> str:
    if side is None:
        return "-"
    return duration(side.ns) if side.wall_share is None else percent(side.wall_share)


def _causes(found: Comparison) -> Lines:
    told = [_cause(one) for one in found.causes if _cause_worth(one)]
    if told:
        yield ""
        yield f"causes, of wall time: {'; '.join(told)}"


def _cause_worth(one: CauseChange) -> bool:
    shares = (one.before_wall_share, one.after_wall_share)
    return any(share is not None and share >= WORTH_SHOWING for share in shares)


def _cause(one: CauseChange) -> str:
    return f"{one.cause} {percent(one.before_wall_share or 0.0)} -> {percent(one.after_wall_share or 0.0)}"


def _score(score: Score, removed: str) -> Lines:
    verdict = "right" if score.right else "wrong"
    yield Text(f"The what-if without {removed} was {verdict}:", style="bold")
    reach = f" ({percent(score.low_share)} to {percent(score.high_share)})"
    yield (
        f"  it foretold stalls of {percent(score.predicted_share)} of wall time{reach}; "
        f"measured {percent(score.measured_share)}, so it was off by {100 * score.error:+.0f} %"
    )
