"""The gate itself: the rules in their order, the deterministic one first, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import comb

from stallscope.analysis.advice import advise
from stallscope.analysis.findings import Advice, Culprit, Location, ResourceTime
from stallscope.analysis.ledger import wait_cause
from stallscope.analysis.sites import location
from stallscope.gate import rules
from stallscope.gate.policy import Allowance, Policy
from stallscope.gate.runs import Facts, Run
from stallscope.gate.sites import Place, Site, Sites, pooled, unqualified
from stallscope.gate.verdict import Figure, NewCulprit, Outcome, Result, Verdict
from stallscope.recording.nouns import Missing

FEWEST_HITS = 2
LEAST_EXPECTED = 1.0
"""Calls that a baseline must have had room for, by the work that it did, before it says that a site is new."""
NEW_P = 0.01
"""Where calls come at random or are drawn: the chance that all of a site's calls fell into the current runs."""
PRESENT_P, PRESENT_RUNS = 0.05, 3
"""With several runs a side: the chance that all runs that have a site are current ones. A site that is met once as a
program ends is caught in one recording of five, several calls of it together."""
_WORST: tuple[Outcome, ...] = ("fail", "warn", "inconclusive", "pass")


@dataclass(frozen=True, slots=True)
class Before:
    """What the current runs are compared with: recordings, a baseline file, or both."""

    facts: tuple[Facts, ...] = ()
    places: frozenset[Place] = frozenset()
    machines: frozenset[str] = field(default_factory=frozenset)
    """Where the accepted runs of a baseline file were made."""


def judge(runs: Sequence[Run], before: Before, policy: Policy, today: date, machine: str = "") -> Verdict:
    """The verdict on runs that were all corrected by one threshold; at least one is needed."""
    sites = pooled(run.sites for run in runs)
    new = sorted(_new(sites, runs, before), key=lambda one: (-one.longest_ns, one.place)) if before.facts else []
    unsure = tuple(site for site in new if not _surely_new(site, runs, before))
    found = [(site, policy.allowance_for(site.place, today)) for site in new if site not in unsure]
    known = tuple((site, one) for site, one in found if one and one.holds(today))
    culprits = tuple(NewCulprit(site, advice_for(site), one) for site, one in found if not (one and one.holds(today)))
    results = tuple(_results(runs, before, policy, culprits, known, unsure))
    return Verdict(
        outcome=min((one.outcome for one in results if one.outcome != "skipped"), key=_WORST.index, default="pass"),
        results=results,
        culprits=culprits,
        known=known,
        unsure=unsure,
        runs=len(runs),
        baseline_runs=len(before.facts),
        notes=tuple(_notes(runs, before, machine)),
        missing=tuple(_missing(runs)),
    )


def _new(sites: Sites, runs: Sequence[Run], before: Before) -> Iterator[Site]:
    qualified = all(one.qualified for one in (*(run.facts for run in runs), *before.facts))
    places = before.places if qualified else {unqualified(place) for place in before.places}
    # A baseline that saw calls only inside stalls says nothing of those that were fast.
    comparable = any(one.sees_calls for one in before.facts)
    for site in sites.values():
        place = site.place if qualified else unqualified(site.place)
        if site.hits >= FEWEST_HITS and place not in places and (comparable or site.in_stalls):
            yield site


def _results(
    runs: Sequence[Run],
    before: Before,
    policy: Policy,
    culprits: Sequence[NewCulprit],
    known: Sequence[tuple[Site, Allowance]],
    unsure: Sequence[Site],
) -> Iterator[Result]:
    yield _new_culprits(before, culprits, known, unsure)
    yield from rules.budgets(runs, policy.budgets)
    facts = [run.facts for run in runs]
    earlier = [one for one in before.facts if one.threshold_ns == facts[0].threshold_ns]
    # What could not be shown matters only where there is something to compare with.
    if not any(one.iterations for one in facts):
        yield Result("stall rate", "inconclusive", why="the recordings hold no iteration of a loop")
    elif earlier:
        yield rules.stall_rate(facts, earlier, all(run.knows_delay for run in runs))
        share = rules.stall_share(facts, earlier)
        yield from () if share is None else (share,)
    elif before.facts:
        yield Result("stall rate", "inconclusive", why="the baseline's runs have another threshold")
    if before.facts:
        yield rules.cpu_per_work(facts, before.facts)
        yield rules.slower_handler(facts, before.facts)


def _new_culprits(
    before: Before,
    culprits: Sequence[NewCulprit],
    known: Sequence[tuple[Site, Allowance]],
    unsure: Sequence[Site],
) -> Result:
    if not before.facts:
        return Result("new culprits", "skipped", why="there is no baseline to compare with")
    figures: tuple[Figure, ...] = (
        Figure("new", len(culprits), "number", 0),
        Figure("accepted", len(known), "number"),
        Figure("call sites in the baseline", len(before.places), "number"),
    )
    if unsure:
        figures = (*figures, Figure("that the baseline did too little work to tell", len(unsure), "number"))
    return Result("new culprits", "fail" if culprits else "warn" if unsure else "pass", figures)


def _surely_new(site: Site, runs: Sequence[Run], before: Before) -> bool:
    """Whether a site that the baseline lacks can hardly have been there by chance."""
    present, earlier = sum(site.place in run.sites for run in runs), len(before.facts)
    several = min(len(runs), earlier) >= PRESENT_RUNS
    if several and comb(len(runs), present) / comb(len(runs) + earlier, present) > PRESENT_P:
        return False
    room = _room([run.facts for run in runs], before.facts)
    if all(one.counts_calls for one in (*(run.facts for run in runs), *before.facts)):
        return site.hits * room >= LEAST_EXPECTED
    return bool((1 + room) ** -site.hits < NEW_P)


def _room(current: Sequence[Facts], baseline: Sequence[Facts]) -> float:
    """How much work the baseline did for each unit of the current runs'; 1 where that is not known."""
    for measure in ("work", "iterations"):
        now, then = (sum(getattr(one, measure) for one in side) for side in (current, baseline))
        if now and then:
            return float(then / now)
    return 1.0


def advice_for(site: Site) -> Advice | None:
    """What to do about a call site, whether it took long or not."""
    resource = site.call.resource
    where = location(site.stack)
    culprit = Culprit(
        rank=0,
        kind="site",
        cause=wait_cause(site.call),
        ns=site.total_ns,
        share=0.0,
        stalls=site.hits,
        longest_ns=site.longest_ns,
        syscall=site.call.name,
        detail=site.call.detail,
        resource=resource.name if resource else None,
        resources=(ResourceTime(resource.name, resource.kind, site.total_ns),) if resource else (),
        handler=site.handler,
        location=Location(where.file, where.line, where.function) if where else None,
        stack=site.stack,
    )
    return advise(culprit)


def _notes(runs: Sequence[Run], before: Before, machine: str) -> Iterator[str]:
    both = [*(run.facts for run in runs), *before.facts]
    ids = {one.id for one in before.facts}
    for run in runs:
        if run.facts.id in ids:
            yield f"{run.path} is itself a run of the baseline: compared with it, it can hardly be worse"
    for run in runs:
        if run.recorded_threshold_ns != run.facts.threshold_ns:
            yield (
                f"{run.path} was recorded with a threshold of {run.recorded_threshold_ns / 1e6:g} ms, and is judged by"
                f" {run.facts.threshold_ns / 1e6:g} ms as the others are"
            )
    levels = sorted({one.level for one in both})
    if len(levels) > 1:
        yield (
            f"the runs were recorded in different ways ({', '.join(levels)}): stall counts compare, and call sites as"
            " far as both could see them"
        )
    if any(run.facts.sees_calls for run in runs) and before.facts and not any(one.sees_calls for one in before.facts):
        yield (
            "the baseline saw calls only inside stalls, so new ones that were fast cannot be told: accept a run that"
            " was recorded as these were"
        )
    if not all(one.qualified for one in both):
        yield "functions are compared by their own names: CPython before 3.11 does not tell their classes"
    others = sorted(before.machines - {machine})
    if machine and others:
        yield f"the baseline was made on another machine ({', '.join(others)}; here {machine}): rates may differ"
    thresholds = {one.threshold_ns for one in before.facts} - {runs[0].facts.threshold_ns}
    if thresholds:
        listed = ", ".join(f"{ns / 1e6:g} ms" for ns in sorted(thresholds))
        yield (
            f"runs of the baseline with another threshold ({listed}, here {runs[0].facts.threshold_ns / 1e6:g} ms) are"
            " left out of the stall rate; their call sites are compared"
        )


def _missing(runs: Sequence[Run]) -> Iterator[Missing]:
    if not all(run.facts.sees_calls for run in runs):
        yield Missing(
            "blocking calls that were fast",
            "these recordings hold calls inside stalls alone, which is too late for some",
        )
    uncorrected = sum(run.uncorrected for run in runs)
    if uncorrected:
        yield Missing(
            f"whether the program itself made {uncorrected} of the long iterations so long",
            "its thread waited for a CPU or for a new thread to run, or its CPU time is not known: they do not count",
        )
    if not all(run.knows_delay for run in runs):
        yield Missing(
            "how long loops waited for a CPU",
            f"the kernel does not tell: the stall rate must be {rules.WIDE_RATIO:g} times as high to fail",
        )
    yield from dict.fromkeys(one for run in runs for one in run.missing)
