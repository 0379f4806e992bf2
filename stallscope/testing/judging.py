"""What fails a test: a stall over its budget, or a blocking call where none is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Findings
from stallscope.analysis.ledger import divide
from stallscope.analysis.sites import location
from stallscope.gate.runs import corrected_ns
from stallscope.gate.sites import Relative, Site, place_of, site_of
from stallscope.recording.nouns import CallSite, Fidelity, Recording, Stall
from stallscope.testing.budget import Budget


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a test fails."""

    stall_ns: int
    """The longest stall over its budget, corrected; 0: none."""
    findings: Findings | None
    """Of the stalls over the budget."""
    blocking: tuple[Site, ...]
    """Blocking calls that are not allowed."""


def judged(
    stalls: Sequence[Stall],
    sites: Iterable[CallSite],
    budget: Budget,
    threshold_ns: int,
    relative: Relative,
    today: date,
) -> Failure | None:
    """Why a test fails that did this; None where it does not."""
    own = [(_own_ns(stall, budget, threshold_ns, relative, today), stall) for stall in stalls]
    limit_ns = budget.max_stall_ns
    over = [(ns, stall) for ns, stall in own if limit_ns is not None and ns > limit_ns]
    blocking = [site_of(one, relative) for one in sites] if budget.forbids_blocking else []
    refused = tuple(site for site in blocking if site is not None and not budget.allows(site.place, today))
    if not over and not refused:
        return None
    findings = examine(_recording([stall for _, stall in over], threshold_ns)) if over else None
    return Failure(max((ns for ns, _ in over), default=0), findings, refused)


def _own_ns(stall: Stall, budget: Budget, threshold_ns: int, relative: Relative, today: date) -> int:
    """How long a stall was by the program's own doing, less what is allowed."""
    parts = divide(stall, threshold_ns)
    kept = []
    for part in parts:
        where = location(part.stack)
        if where is not None and part.call is not None:
            place = place_of(where, part.call, relative)
            if budget.allows(place, today):
                continue
        kept.append(part)
    return corrected_ns(stall, kept)


def _recording(stalls: Sequence[Stall], threshold_ns: int) -> Recording:
    started_ns = min(stall.start_ns for stall in stalls)
    ended_ns = max(stall.start_ns + stall.duration_ns for stall in stalls)
    return Recording("", "stallscope", threshold_ns, started_ns, ended_ns, Fidelity("agent"), stalls=tuple(stalls))
