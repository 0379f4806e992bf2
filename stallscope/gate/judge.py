"""The gate itself: the rules in their order, the deterministic one first, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import comb
from statistics import median

from stallscope.analysis.advice import advise
from stallscope.analysis.findings import Advice, Culprit, Location, ResourceTime
from stallscope.analysis.ledger import wait_cause
from stallscope.analysis.sites import location
from stallscope.gate import rules
from stallscope.gate.chance import fresh_p
from stallscope.gate.policy import Policy
from stallscope.gate.runs import Facts, Run
from stallscope.gate.sites import Place, Site, Sites, pooled, unqualified
from stallscope.gate.verdict import Figure, NewCulprit, NewSites, Outcome, Result, Verdict
from stallscope.recording.nouns import Missing

FEWEST_HITS = 2
LEAST_EXPECTED = 1.0
"""Calls that a baseline must have had room for, by the work that it did, before it says that a site is new."""
LEAST_WORK = 1_600
"""Short calls of handlers are counted one in sixteen, as so many: a hundred drawn are told to a tenth.  Of fewer, the
iterations tell more: two sessions of the same dozen calls counted 2 and 34."""
NEW_P = 0.01
"""Where calls come at random or are drawn: the chance that all of a site's calls fell into the current runs."""
PRESENT_P, PRESENT_RUNS = 0.05, 3
"""With several runs a side: the chance that all runs that have a site are current ones. A site that is met once as a
program ends is caught in one recording of five, several calls of it together."""
STALLS_P = 0.03
"""Where a place stalls the loop: the chance that the baseline has no such stall, at the worst rate of it.  With as much
work on both sides that takes four stalls; by the rule of calls it would take seven, and by that of the rate eight."""
SLACK = 1.25
"""What computes that long now may have computed a little less than the threshold before, on a faster machine."""
_OURS = ("pulse", "agent")
"""Levels of stallscope's own recordings; others are foreign traces."""
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
    new = _new_sites(runs, before, policy, today)
    results = tuple(_results(runs, before, policy, new))
    return Verdict(
        outcome=min((one.outcome for one in results if one.outcome != "skipped"), key=_WORST.index, default="pass"),
        results=results,
        new=new,
        runs=len(runs),
        baseline_runs=len(before.facts),
        notes=tuple(_notes(runs, before, machine)),
        missing=tuple(_missing(runs)),
    )


def _new_sites(runs: Sequence[Run], before: Before, policy: Policy, today: date) -> NewSites:
    sites = pooled(run.sites for run in runs)
    new = sorted(_new(sites, runs, before), key=lambda one: (-one.longest_ns, one.place)) if before.facts else []
    telling = {site.place: _telling(site, runs, before) for site in new}
    told = [site for site in new if telling[site.place]]
    unsure = tuple(site for site in told if not _surely_new(site, runs, telling[site.place]))
    found = [(site, policy.allowance_for(site.place, today)) for site in told if site not in unsure]
    return NewSites(
        culprits=tuple(
            NewCulprit(site, advice_for(site), one) for site, one in found if not (one and one.holds(today))
        ),
        known=tuple((site, one) for site, one in found if one and one.holds(today)),
        unsure=unsure,
        untold=tuple(site for site in new if not telling[site.place]),
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


def _results(runs: Sequence[Run], before: Before, policy: Policy, new: NewSites) -> Iterator[Result]:
    yield _new_culprits(before, new)
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


def _new_culprits(before: Before, new: NewSites) -> Result:
    if not before.facts:
        return Result("new culprits", "skipped", why="there is no baseline to compare with")
    figures: tuple[Figure, ...] = (
        Figure("new", len(new.culprits), "number", 0),
        Figure("accepted", len(new.known), "number"),
        Figure("call sites in the baseline", len(before.places), "number"),
    )
    if new.unsure:
        figures = (*figures, Figure("that the baseline did too little work to tell", len(new.unsure), "number"))
    why = ""
    if new.untold:
        figures = (*figures, Figure("that the baseline's recorder does not count", len(new.untold), "number"))
        why = "accept a run of this stallscope with: stallscope baseline update RECORDING"
    outcome: Outcome = "fail" if new.culprits else "warn" if new.unsure else "inconclusive" if new.untold else "pass"
    return Result("new culprits", outcome, figures, why)


def _telling(site: Site, runs: Sequence[Run], before: Before) -> tuple[Facts, ...]:
    """The runs of the baseline that would have the site, had it been there."""
    own = [run.facts for run in runs if site.place in run.sites]
    return tuple(one for one in before.facts if _tells(one, site, own))


def _tells(one: Facts, site: Site, own: Sequence[Facts]) -> bool:
    if site.computes:
        return one.knows_computing and all(one.threshold_ns <= now.threshold_ns for now in own)
    if one.counted is None or one.level not in _OURS:  # as before recorders were noted: of their own kind
        alike = all(now.counted is None or one.level not in _OURS for now in own)
        return alike and (one.sees_calls or site.in_stalls)
    return site.call.name in one.counted or (one.level != "pulse" and site.in_stalls)


def _surely_new(site: Site, runs: Sequence[Run], earlier_runs: Sequence[Facts]) -> bool:
    """Whether a site that the baseline's runs lack can hardly have been there by chance."""
    present, earlier = sum(site.place in run.sites for run in runs), len(earlier_runs)
    several = min(len(runs), earlier) >= PRESENT_RUNS
    if several and comb(len(runs), present) / comb(len(runs) + earlier, present) > PRESENT_P:
        return False
    room = _room([run.facts for run in runs], earlier_runs)
    least_ns = SLACK * _slower(runs, earlier_runs) * runs[0].facts.threshold_ns if site.computes else 0
    if site.total_ns >= site.hits * least_ns and fresh_p(site.stalls, room) < STALLS_P:
        return True
    if site.computes:
        return False
    if all(one.counts_calls for one in (*(run.facts for run in runs), *earlier_runs)):
        return site.hits * room >= LEAST_EXPECTED
    return bool((1 + room) ** -site.hits < NEW_P)


def _slower(runs: Sequence[Run], baseline: Sequence[Facts]) -> float:
    """By how much the machine was slower than it was for the baseline, as the handlers' medians tell; at least 1."""
    usual, now = _medians(baseline), _medians([run.facts for run in runs])
    ratios = [ns / usual[name] for name, ns in now.items() if usual.get(name)]
    return max(1.0, median(ratios)) if ratios else 1.0


def _medians(several: Sequence[Facts]) -> dict[str, float]:
    names = {name for one in several for name in one.medians_ns}
    return {name: median([one.medians_ns[name] for one in several if name in one.medians_ns]) for name in names}


def _room(current: Sequence[Facts], baseline: Sequence[Facts]) -> float:
    """How much work the baseline did for each unit of the current runs'; 1 where that is not known."""
    for measure, least in (("work", LEAST_WORK), ("iterations", 1)):
        now, then = (sum(getattr(one, measure) for one in side) for side in (current, baseline))
        if min(now, then) >= least:
            return float(then / now)
    return 1.0


def advice_for(site: Site) -> Advice | None:
    """What to do about a call site, whether it took long or not."""
    resource = site.call.resource
    where = location(site.stack)
    culprit = Culprit(
        rank=0,
        kind="site",
        cause="python-cpu" if site.computes else wait_cause(site.call),
        ns=site.total_ns,
        share=0.0,
        stalls=site.hits,
        longest_ns=site.longest_ns,
        syscall=None if site.computes else site.call.name,
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
    yield from _of_recorders(runs, before)
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


def _of_recorders(runs: Sequence[Run], before: Before) -> Iterator[str]:
    """What is said of recordings that different recorders made."""
    ours = {(run.facts.level, run.facts.counted): run.facts.recorder for run in runs if run.facts.level in _OURS}
    alike = [one for one in before.facts if one.level in {level for level, _ in ours}]
    different = {one.recorder for one in alike if (one.level, one.counted) not in ours}
    if different:
        there, here = (
            ", ".join(sorted(name or "an older one" for name in names)) for names in (different, {*ours.values()})
        )
        yield (
            f"the baseline was recorded by another stallscope ({there}; here {here}): calls that only"
            " one of them counts are not held against these runs; renew it with: stallscope baseline update RECORDING"
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
