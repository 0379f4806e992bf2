"""The rules of timing: budgets, the rate of stalls, CPU for each unit of work, and what the data could have shown.

Figures of one run differ from those of the next by the machine's speed, which drifts by half, and by its load; more
statistics does not save a comparison from drift.  So a rate must be a quarter worse beyond chance, both by time and by
work done, before it fails (see `tests.benchmarks.gate` for the false alarms and the power that this has).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from statistics import fmean, median

from stallscope.gate.chance import events_needed, rank_p, rate_p
from stallscope.gate.policy import Budgets
from stallscope.gate.runs import Facts, Run
from stallscope.gate.verdict import Figure, Outcome, Result, Unit

RATE_RATIO = 1.25
WIDE_RATIO = 2.0
"""Where the kernel does not tell how long a thread waited for a CPU."""
RATE_P = 0.01
SHARE_RATIO, SHARE_POINTS, SHARE_P, SHARE_RUNS = 2.0, 0.005, 0.05, 3
CPU_RATIO, CPU_P, CPU_RUNS, CPU_WARN_RUNS = 1.25, 0.005, 5, 3
"""Two rules share the one false alarm in a hundred that five runs a side may have; each at 0.01 made it 1.4 to 1.7.
With less than three they say nothing: of single runs of identical code, two pairs in five were warned of."""
FEW_RUNS = f"fewer than {CPU_WARN_RUNS} runs a side: the machine's speed alone may make such a difference"
HANDLER_RATIO, FEWEST_HANDLERS = 1.2, 4
INTERESTING_RATIO = 2.0
INTERESTING_SHARE = 0.001
"""A regression worth showing: twice the rate, or one stall in a thousand iterations where there were fewer before."""
MINUTE_NS = 60e9


def budgets(runs: Sequence[Run], limits: Budgets) -> Iterator[Result]:
    """One result for each budget that is set."""
    if limits.max_stall_ns is not None:
        yield _longest(runs, limits.max_stall_ns)
    wall_ns = _sum_walls(runs)
    share = sum(run.facts.stall_ns for run in runs) / wall_ns if wall_ns else None
    per_minute = sum(run.facts.stalls for run in runs) / wall_ns * MINUTE_NS if wall_ns else None
    p99s = [run.p99_ns for run in runs if run.p99_ns is not None]
    p99_ns = fmean(p99s) if p99s else None
    yield from _simple("stall share", share, "share", limits.stall_share)
    yield from _simple("stalls a minute", per_minute, "per minute", limits.stalls_per_minute)
    yield from _simple("p99 of iterations", p99_ns, "ns", limits.p99_ns)
    for name, limit_ns in limits.handler_max_ns.items():
        yield _handler(runs, name, limit_ns)


def _simple(name: str, value: float | None, unit: Unit, limit: float | None) -> Iterator[Result]:
    if limit is not None and value is None:
        yield Result(name, "inconclusive", why="the recordings do not tell")
    elif limit is not None and value is not None:
        yield Result(name, "fail" if value > limit else "pass", (Figure("measured", value, unit, limit),))


def _longest(runs: Sequence[Run], limit_ns: int) -> Result:
    """The longest stall, one for each run forgiven: a single hiccup is no reason to stop a build, a hang is."""
    stalls = sorted((ns for run in runs for ns in run.longest_ns), reverse=True)
    judged = stalls[len(runs)] if len(stalls) > len(runs) else 0
    hung = max((run.hung_ns for run in runs), default=0)
    longest = Figure("longest", max(stalls, default=0), "ns")
    if hung > limit_ns:
        return Result("longest stall", "fail", (Figure("not over at the end", hung, "ns", limit_ns), longest))
    figures = (Figure("judged, one a run forgiven", judged, "ns", limit_ns), longest)
    return Result("longest stall", "fail" if judged > limit_ns else "pass", figures)


def _handler(runs: Sequence[Run], name: str, limit_ns: int) -> Result:
    rule = f"longest call of {name}"
    calls = sorted((ns for run in runs for ns in run.handlers.get(name, ())), reverse=True)
    if not calls:
        return Result(rule, "inconclusive", why=f"no handler of the name {name} ran: the budget was not tested")
    judged = calls[min(len(runs), len(calls) - 1)]
    figures = (Figure("judged, one a run forgiven", judged, "ns", limit_ns), Figure("longest", calls[0], "ns"))
    return Result(rule, "fail" if judged > limit_ns else "pass", figures)


def stall_rate(current: Sequence[Facts], baseline: Sequence[Facts], knows_delay: bool) -> Result:
    """Whether stalls came more often, by time and by work done; and what could have been shown."""
    exposures = _exposures(current, baseline)
    if not exposures:
        return Result("stall rate", "inconclusive", why="neither time nor work of the runs is known")
    stalls, before = sum(one.stalls for one in current), sum(one.stalls for one in baseline)
    ratio = RATE_RATIO if knows_delay else WIDE_RATIO
    p = max(rate_p(stalls, before, *exposure, ratio) for exposure in exposures)
    expected = max(before * now / then for now, then in exposures)
    figures = (
        Figure("stalls", stalls, "number"),
        Figure("expected from the baseline", expected, "number"),
        Figure("chance", p, "p", RATE_P),
    )
    if p < RATE_P:
        return Result("stall rate", "fail", figures)
    needed = max(events_needed(before, *exposure, ratio, RATE_P) for exposure in exposures)
    iterations = sum(one.iterations for one in current)
    interesting = max(INTERESTING_RATIO * expected, INTERESTING_SHARE * iterations)
    if needed <= interesting:
        return Result("stall rate", "pass", figures)
    return Result("stall rate", "inconclusive", (*figures, *_smallest(needed, expected, iterations)))


def _smallest(needed: int, expected: float, iterations: int) -> Iterator[Figure]:
    """The smallest regression that such data could have shown."""
    if expected > 0:
        yield Figure("smallest ratio it could have shown", needed / expected, "times")
    yield Figure("which takes stalls", needed, "number")
    if iterations:
        yield Figure("of all iterations", needed / iterations, "share")


def stall_share(current: Sequence[Facts], baseline: Sequence[Facts]) -> Result | None:
    """Whether stalls took more than twice as much of the time; None with too few runs a side to say."""
    sides = [[one.stall_ns / one.wall_ns for one in side if one.wall_ns] for side in (current, baseline)]
    if min(map(len, sides)) < SHARE_RUNS:
        return None
    now, before = (fmean(shares) for shares in sides)
    p = rank_p(sides[0], sides[1])
    # Three runs against three can show no less than p = 0.05.
    limit = SHARE_P if min(map(len, sides)) < CPU_RUNS else RATE_P
    worse = now > SHARE_RATIO * before and now - before > SHARE_POINTS and p <= limit
    figures = (
        Figure("of wall time", now, "share"),
        Figure("before", before, "share"),
        Figure("chance", p, "p", limit),
    )
    return Result("stall time", "fail" if worse else "pass", figures)


def cpu_per_work(current: Sequence[Facts], baseline: Sequence[Facts]) -> Result:
    """Whether the loops computed more for each unit of work: speed drifts, so three runs a side warn and five fail."""
    sides = [[one.cpu_ns / one.work for one in side if one.cpu_ns and one.work] for side in (current, baseline)]
    if not all(sides):
        return Result("CPU for each unit of work", "skipped", why="the recordings do not hold the loops' CPU time")
    now, before = (fmean(side) for side in sides)
    figures: tuple[Figure, ...] = (
        Figure("ratio", now / before, "times", CPU_RATIO),
        Figure("now", now, "ns"),
        Figure("before", before, "ns"),
    )
    if min(map(len, sides)) < CPU_WARN_RUNS:
        return Result("CPU for each unit of work", "skipped", figures, FEW_RUNS)
    outcome: Outcome = "warn" if now > CPU_RATIO * before else "pass"
    if min(map(len, sides)) >= CPU_RUNS:
        p = rank_p(sides[0], sides[1])
        figures = (*figures, Figure("chance", p, "p", CPU_P))
        outcome = "fail" if outcome == "warn" and p < CPU_P else outcome
    return Result("CPU for each unit of work", outcome, figures)


def slower_handler(current: Sequence[Facts], baseline: Sequence[Facts]) -> Result:
    """Whether one handler's median call grew more than those of the others did, which takes the machine's speed out.

    Like the CPU of all, it only warns with fewer than five runs a side, and says nothing with fewer than three.
    """
    rule = "slowest handler beside the others"
    names = sorted(set.intersection(*(set(one.medians_ns) for one in (*current, *baseline))))
    if len(names) < FEWEST_HANDLERS:
        return Result(rule, "skipped", why=f"fewer than {FEWEST_HANDLERS} handlers ran often enough on both sides")
    usual = {name: fmean(_log(one, name) for one in baseline) for name in names}
    grown = {name: [[_beside(one, name, usual) for one in side] for side in (current, baseline)] for name in names}
    ratios = {name: exp(fmean(now) - fmean(before)) for name, (now, before) in grown.items()}
    name, ratio = max(ratios.items(), key=lambda item: item[1])
    figures: tuple[Figure, ...] = (Figure("its median call", ratio, "times", HANDLER_RATIO),)
    if min(len(current), len(baseline)) < CPU_WARN_RUNS:
        return Result(rule, "skipped", figures, f"{name}; {FEW_RUNS}")
    outcome: Outcome = "warn" if ratio > HANDLER_RATIO else "pass"
    if min(len(current), len(baseline)) >= CPU_RUNS:
        p = rank_p(*grown[name])
        figures = (*figures, Figure("chance", p, "p", CPU_P))
        outcome = "fail" if outcome == "warn" and p < CPU_P else outcome
    return Result(rule, outcome, figures, name)


def _log(facts: Facts, name: str) -> float:
    return log(max(1, facts.medians_ns[name]))


def _beside(facts: Facts, name: str, usual: Mapping[str, float]) -> float:
    """By how much a handler was slower than usual in a run (a logarithm), less what the others were on the median."""
    others = (_log(facts, other) - level for other, level in usual.items() if other != name)
    return _log(facts, name) - usual[name] - median(others)


def _exposures(current: Sequence[Facts], baseline: Sequence[Facts]) -> list[tuple[float, float]]:
    """What stalls are counted against, now and before: wall time and work, as far as all runs know them."""
    found = []
    for measure in ("wall_ns", "work"):
        sides = [[getattr(one, measure) for one in side] for side in (current, baseline)]
        if all(side and all(side) for side in sides):
            found.append((float(sum(sides[0])), float(sum(sides[1]))))
    return found


def _sum_walls(runs: Sequence[Run]) -> int:
    walls = [run.facts.wall_ns for run in runs]
    return sum(walls) if all(walls) else 0
