"""Values as the JSON reports write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def milliseconds(ns: float) -> float:
    """Of ns, to the ns."""
    return round(ns / 1e6, 6)


def seconds(ns: float) -> float:
    """Of ns, to the ns."""
    return round(ns / 1e9, 9)


def rounded_share(share: float | None) -> float | None:
    """To a millionth."""
    return None if share is None else round(share, 6)


def by_cause(ledger: Mapping[Any, int]) -> Json:
    """A ledger in ms."""
    return {cause: milliseconds(ns) for cause, ns in ledger.items()}
