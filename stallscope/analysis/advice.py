"""What to do about a culprit: the first remedy of the catalogue that fits its cause, call, resource and stack."""

from __future__ import annotations

from collections.abc import Iterable

from stallscope.analysis.catalogue import ALSO, CALLS, CATALOGUE
from stallscope.analysis.findings import Advice, Culprit
from stallscope.analysis.remedies import Remedy, fits
from stallscope.analysis.sites import bare

LOW_CONFIDENCE = "Low confidence: fewer than 3 samples speak for it."
BLOCKING_PART = "blocking_part"
"""What code templates call the lines to move, where these stand in the handler itself: that cannot go to a thread."""


def advise(culprit: Culprit, same_handler: Iterable[Culprit] = ()) -> Advice | None:
    """Advice for one culprit; `same_handler` are the culprits whose calls it should be moved together with.

    None where the cause is not known.
    """
    remedy = next((remedy for remedy in CATALOGUE if fits(remedy, culprit)), None)
    if remedy is None:
        return None
    words = _words(culprit)
    sentences = [
        remedy.words.format(**words),
        _partial(culprit, list(same_handler)),
        LOW_CONFIDENCE if culprit.low_confidence else "",
    ]
    also = tuple(_advice(other, words, other.words.format(**words)) for other in ALSO if fits(other, culprit))
    return _advice(remedy, words, " ".join(filter(None, sentences)), also)


def _advice(remedy: Remedy, words: dict[str, str], summary: str, also: tuple[Advice, ...] = ()) -> Advice:
    return Advice(summary, remedy.code.format(**words), remedy.name, remedy.source, also)


def _words(culprit: Culprit) -> dict[str, str]:
    handler = bare(culprit.handler.name) if culprit.handler else ""
    function = bare(culprit.location.function) if culprit.location else ""
    movable = function.isidentifier() and function != handler
    return {
        "call": culprit.syscall or "it",
        "resource": _short(culprit.resource or "it"),
        "handler": handler or "the handler",
        "function": function if movable else BLOCKING_PART,
    }


def _short(resource: str) -> str:
    """The end of a path says enough, once the report has named it whole."""
    parts = resource.split("/")
    return "/".join(parts[-2:] if "*" in parts[-1] else parts[-1:]) or resource


def _partial(culprit: Culprit, same_handler: list[Culprit]) -> str:
    """The partial remedy, named: offloading the read alone gains nothing while open() blocks."""
    opens, reads = CALLS["opens"], CALLS["reads"]
    for mine, theirs in ((opens, reads), (reads, opens)):
        if culprit.syscall in mine:
            found = next((other for other in same_handler if other.syscall in theirs), None)
            if found is not None:
                return f"{found.syscall} blocks in the same handler (#{found.rank}): a remedy for one leaves the other."
    return ""
