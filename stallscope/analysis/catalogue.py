"""The catalogue of remedies, read once from ``catalogue.toml``, which explains its entries."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from stallscope.analysis.remedies import Remedy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DATA: Mapping[str, Any] = tomllib.loads(files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8"))

CALLS: Mapping[str, frozenset[str]] = {group: frozenset(names) for group, names in _DATA["calls"].items()}
"""System calls by what they do: ``opens``, ``reads``, ``writes`` …"""


def _remedy(entry: Mapping[str, Any]) -> Remedy:
    """An entry with its lists as sets, and ``@group`` replaced by the group's calls."""
    values: dict[str, Any] = {
        key: frozenset(_names(one)) if isinstance(one, list) else one for key, one in entry.items()
    }
    return Remedy(**values)


def _names(values: list[str]) -> Iterator[str]:
    for value in values:
        yield from CALLS[value[1:]] if value.startswith("@") else (value,)


REMEDIES = tuple(_remedy(entry) for entry in _DATA["remedy"])
CATALOGUE = tuple(one for one in REMEDIES if not one.beside)
"""The first that fits is a culprit's advice."""
ALSO = tuple(one for one in REMEDIES if one.beside)
"""Every one that fits is told besides."""
