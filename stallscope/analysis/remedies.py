"""A remedy: what the catalogue's entries are, and when one fits a culprit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stallscope.analysis.findings import Culprit, Kind
from stallscope.analysis.sites import bare, package_of

Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class Remedy:
    """An entry of the catalogue."""

    name: str
    words: str
    source: str
    """Where the claim is made or can be checked."""
    code: str = ""
    finding: Kind = "site"
    beside: bool = False
    """Told besides the advice, wherever it fits."""
    causes: Names = frozenset()
    calls: Names = frozenset()
    kinds: Names = frozenset()
    """Kinds of the resources that it touched."""
    packages: Names = frozenset()
    """One of these third-party packages is on the stack."""
    without: Names = frozenset()
    """None of these folders of a package is on the stack (its asynchronous part, say)."""
    files: Names = frozenset()
    """The end of a file's path on the stack."""
    functions: Names = frozenset()
    """The bare name of a function on the stack."""
    resources: str = ""
    """A regular expression found in a resource's name."""
    repeated: int = 0
    """So many stalls for each resource, or more."""
    roots: int = 0
    """Paths below so many top folders, or more."""
    calls_per_stall: int = 0
    """So many calls in each stall, or more; fits only where calls were counted."""


def fits(remedy: Remedy, culprit: Culprit) -> bool:
    """Whether the evidence for a culprit meets every condition of a remedy."""
    return (
        remedy.finding == culprit.kind
        and (not remedy.causes or culprit.cause in remedy.causes)
        and (not remedy.calls or culprit.syscall in remedy.calls)
        and culprit.calls_per_stall >= remedy.calls_per_stall
        and _fits_resources(remedy, culprit)
        and _fits_stack(remedy, culprit)
    )


def _fits_resources(remedy: Remedy, culprit: Culprit) -> bool:
    named = [one for one in culprit.resources if one.name]
    roots = {"/".join(one.name.split("/")[:3]) for one in named if one.name.count("/") > 2}
    return (
        (not remedy.kinds or any(one.kind in remedy.kinds for one in culprit.resources))
        and (not remedy.resources or any(re.search(remedy.resources, one.name) for one in named))
        and (not remedy.repeated or (bool(named) and culprit.stalls >= remedy.repeated * len(named)))
        and len(roots) >= remedy.roots
    )


def _fits_stack(remedy: Remedy, culprit: Culprit) -> bool:
    files = [frame.file for frame in culprit.stack]
    packages = {package_of(file) for file in files}
    return (
        (not remedy.packages or bool(remedy.packages & packages))
        and not any(folder in file for folder in remedy.without for file in files)
        and (not remedy.files or any(file.endswith(tuple(remedy.files)) for file in files))
        and (not remedy.functions or any(bare(frame.function) in remedy.functions for frame in culprit.stack))
    )
