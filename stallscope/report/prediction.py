"""A what-if for people: the recording as it is, beside what it would be."""

from __future__ import annotations

from rich.text import Text

from stallscope.analysis.findings import Findings, Prediction, Removal
from stallscope.report import side_by_side, totals_table
from stallscope.report.culprit_table import call_of
from stallscope.report.page import Lines, fitting, print_lines
from stallscope.report.words import duration, percent, verdict_of

NAMES = ("recorded", "predicted")


def render(findings: Findings, *, width: int = 80, colour: bool = False) -> str:
    """The findings' prediction as text; `findings.prediction` must be there."""
    if findings.prediction is None:
        raise ValueError("the findings were made without a what-if")
    return print_lines(_lines(findings, findings.prediction), fitting(width), colour)


def _lines(findings: Findings, foretold: Prediction) -> Lines:
    yield Text(f"{findings.recording.path} without {removal_words(foretold.removal)}:", style="bold")
    for one in findings.culprits:
        if one.rank in foretold.removal.culprits:
            where = f" in {one.location.function}" if one.location else ""
            yield f"  #{one.rank} {call_of(one) or one.cause}{where}, {duration(one.ns)} in {one.stalls:,} stalls"
    yield f"  {duration(foretold.removed_ns)} of stall time would not pass"
    yield ""
    yield from side_by_side.figures(totals_table.rows(findings.totals, foretold.totals), NAMES)
    yield from rebound(foretold)
    yield ""
    yield from (Text(line, no_wrap=True) for line in side_by_side.draw(findings.totals, foretold.totals, NAMES))
    yield ""
    yield f"recorded:  {verdict_of(findings.totals.modality)}"
    yield f"predicted: {verdict_of(foretold.totals.modality)}"


def rebound(foretold: Prediction) -> Lines:
    """How much more of the rest may come, where there is a rest."""
    expected, most = foretold.share_expected, foretold.share_if_clients_wait
    if expected is not None and most is not None and foretold.totals.stall_ns:
        yield (
            f"  The column holds if requests come no faster than they did. Clients that wait for one answer before "
            f"they ask again come faster, and meet what is left more often: by what came behind the stalls so far, "
            f"expect stalls of {percent(expected)} of wall time, and of {percent(most)} at most."
        )


def removal_words(removal: Removal) -> str:
    """For example ``culprits 1, 2 and cause gc``."""
    parts = []
    if removal.culprits:
        parts.append(f"culprit{'s' * (len(removal.culprits) > 1)} {', '.join(map(str, removal.culprits))}")
    if removal.causes:
        parts.append(f"cause{'s' * (len(removal.causes) > 1)} {', '.join(removal.causes)}")
    return " and ".join(parts)
