"""What a what-if takes away, as people type it: ``culprit=1,2``, ``cause=gc``, or both, with a space between."""

from __future__ import annotations

from stallscope.analysis.findings import Removal
from stallscope.analysis.ledger import CAUSES, Cause
from stallscope.errors import UnreadableInput

_EXAMPLES = 'write --what-if "culprit=1,2" or --what-if "cause=gc"'


def parse_removal(text: str) -> Removal:
    """The culprits and causes of a what-if.

    Raises UnreadableInput for what is none, and for a cause that there is not.
    """
    culprits: list[int] = []
    causes: list[Cause] = []
    for part in text.split():
        name, _, values = part.partition("=")
        given = [value for value in values.split(",") if value]
        if name not in ("culprit", "cause") or not given:
            raise UnreadableInput(f"the what-if {text!r} names no culprit and no cause: {_EXAMPLES}")
        if name == "culprit":
            culprits += [_number(value, text) for value in given]
        else:
            causes += [_cause(value) for value in given]
    if not culprits and not causes:
        raise UnreadableInput(f"the what-if is empty: {_EXAMPLES}")
    return Removal(tuple(dict.fromkeys(culprits)), tuple(dict.fromkeys(causes)))


def _number(value: str, text: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise UnreadableInput(f"{value!r} in the what-if {text!r} is no number of a culprit: {_EXAMPLES}")
    return int(value)


def _cause(value: str) -> Cause:
    found = next((cause for cause in CAUSES if cause == value), None)
    if found is None:
        raise UnreadableInput(
            f"the what-if names the cause {value!r}, which there is not; there are {', '.join(CAUSES)}"
        )
    return found
