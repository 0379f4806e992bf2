"""Durations and shares as people type them: ``10ms``, ``1.5s``, ``500us``; ``1%``, ``0.01``."""

from __future__ import annotations

import re

from stallscope.agent.layout import MAX_NS
from stallscope.errors import UnreadableInput

_SIZES_NS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "min": 60e9}
_DURATION = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-zµμ]+)\s*")
_SHARE = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(%?)\s*")
_EXAMPLES = "give a time such as 10ms, 1.5s or 500us"


def parse_duration_ns(text: str, what: str = "the threshold") -> int:
    """The ns of a duration such as ``10ms``; `what` names it in errors.

    Raises UnreadableInput for anything else, and for what is no more than zero or longer than a histogram holds.
    """
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise UnreadableInput(f"{what} {text!r} is no duration: {_why(text)}; {_EXAMPLES}")
    number, unit = float(matched[1]), matched[2].replace("μ", "µ")
    if unit not in _SIZES_NS:
        raise UnreadableInput(f"{what} {text!r} has an unknown unit: times are in ns, us, ms, s or min; {_EXAMPLES}")
    ns = number * _SIZES_NS[unit]
    if ns < 1:
        raise UnreadableInput(
            f"{what} {text!r} is zero, or under a nanosecond: every iteration lasts longer; {_EXAMPLES}"
        )
    if ns > MAX_NS:
        raise UnreadableInput(f"{what} {text!r} is longer than the longest iteration that is counted, 9.7 hours")
    return round(ns)


def parse_share(text: str, what: str) -> float:
    """The share from 0 to 1 of a text such as ``1%`` or ``0.01``; `what` names it in errors.

    Raises UnreadableInput for anything else, and for more than all.
    """
    number = _SHARE.fullmatch(text)
    share = float(number[1]) / (100 if number[2] else 1) if number else -1.0
    if not 0 <= share <= 1:
        raise UnreadableInput(f"{what} {text!r} is no share: give one from 0% to 100%, such as 1% or 0.01")
    return share


def _why(text: str) -> str:
    bare = text.strip()
    if not bare:
        return "it is empty"
    if bare.startswith("-"):
        return "it must be more than zero"
    if re.fullmatch(r"[0-9.]+", bare):
        return "it has no unit"
    return "it must be a number and a unit"
