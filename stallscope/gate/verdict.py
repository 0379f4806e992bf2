"""The verdict: the value at which the gate and its reports meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stallscope.analysis.findings import Advice
from stallscope.gate.policy import Allowance
from stallscope.gate.sites import Site
from stallscope.recording.nouns import Missing

Outcome = Literal["fail", "warn", "inconclusive", "pass", "skipped"]
"""Of a rule; a verdict is never ``skipped``.  The worst comes first."""

Unit = Literal["ns", "share", "number", "times", "per minute", "p"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a rule looked at, and the limit that it was held against."""

    name: str
    value: float
    unit: Unit
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one rule says."""

    rule: str
    outcome: Outcome
    figures: tuple[Figure, ...] = ()
    why: str = ""
    """A sentence where the figures do not say enough."""


@dataclass(frozen=True, slots=True)
class NewCulprit:
    """A call site that blocks and is in no run of the baseline."""

    site: Site
    advice: Advice | None
    expired: Allowance | None = None
    """What used to allow it."""


@dataclass(frozen=True, slots=True)
class NewSites:
    """The call sites that are in no run of the baseline, sorted by what follows from them."""

    culprits: tuple[NewCulprit, ...]
    """Those that fail the gate: what took longest first."""
    known: tuple[tuple[Site, Allowance], ...]
    """Those that are accepted, with what accepts them."""
    unsure: tuple[Site, ...]
    """Those of which the baseline, by the work that it did, might have had none by chance."""
    untold: tuple[Site, ...]
    """Those of which no run of the baseline tells: its recorder counts no such calls."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says."""

    outcome: Outcome
    results: tuple[Result, ...]
    """One a rule, in the order of the rules."""
    new: NewSites
    runs: int
    baseline_runs: int
    notes: tuple[str, ...]
    """Sentences about what was not compared like with like."""
    missing: tuple[Missing, ...]
    """What could not be seen."""

    @property
    def failed(self) -> bool:
        """Whether it must stop a build."""
        return self.outcome == "fail"
