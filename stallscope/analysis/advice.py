"""What to do about a culprit: the first remedy of the catalogue that fits its cause, call, resource and stack."""

from __future__ import annotations

from collections.abc import Iterable

from stallscope.analysis.catalogue import ALSO, CATALOGUE, OPENS, READS
from stallscope.analysis.findings import Advice, Culprit
from stallscope.analysis.remedies import fits
from stallscope.analysis.sites import bare

LOW_CONFIDENCE = "Low confidence: fewer than 3 samples speak for it."
BLOCKING_PART = "blocking_part"
"""What code templates call the lines to move, where these stand in the handler itself: that cannot go to a thread."""

_PILE_UP = Advice(
    "No single call is slow: too many handlers became ready at once. Give the loop a turn between them, or make fewer.",
    "await asyncio.sleep(0)  # every few items of a batch",
    "pile-up",
)
_SATURATION = Advice(
    "The loop never waits: it has more work than one thread can do. Add workers, or move computing away.",
    "",
    "saturation",
)


def advise(culprit: Culprit, same_handler: Iterable[Culprit] = ()) -> Advice | None:
    """Advice for one culprit; `same_handler` are the culprits whose calls it should be moved together with.

    None where the cause is not known.
    """
    if culprit.kind != "site":
        return _PILE_UP if culprit.kind == "pile-up" else _SATURATION
    remedy = next((remedy for remedy in CATALOGUE if fits(remedy, culprit)), None)
    if remedy is None:
        return None
    words = _words(culprit)
    sentences = [remedy.words.format(**words), _together(culprit, same_handler)]
    if culprit.low_confidence:
        sentences.append(LOW_CONFIDENCE)
    return Advice(
        " ".join(filter(None, sentences)),
        remedy.code.format(**words),
        remedy.name,
        remedy.source,
        tuple(
            Advice(other.words.format(**words), other.code.format(**words), other.name, other.source)
            for other in ALSO
            if fits(other, culprit)
        ),
    )


def _words(culprit: Culprit) -> dict[str, str]:
    handler = bare(culprit.handler.name) if culprit.handler else ""
    function = bare(culprit.location.function) if culprit.location else ""
    movable = function.isidentifier() and function != handler
    return {
        "call": culprit.syscall or "it",
        "resource": culprit.resource or "it",
        "handler": handler or "the handler",
        "function": function if movable else BLOCKING_PART,
    }


def _together(culprit: Culprit, same_handler: Iterable[Culprit]) -> str:
    """The partial remedy, named: offloading the read alone gains nothing while open() blocks."""
    for mine, theirs in ((OPENS, READS), (READS, OPENS)):
        if culprit.syscall in mine:
            found = next((other for other in same_handler if other.syscall in theirs), None)
            if found is not None:
                return f"{found.syscall} blocks in the same handler (#{found.rank}): a remedy for one leaves the other."
    return ""
