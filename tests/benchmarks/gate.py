"""False alarms and power of the gate, beside its peers' rules: ``python -m tests.benchmarks.gate DIRECTORY ...``.

Each DIRECTORY holds what one run of `tests.benchmarks.gate_recordings` made; pairs are drawn within it, since another
version of the recorder may know of more calls.  A pair is a baseline and a current side of one, three or
five runs each.  With one run a side, each recording without a regression is in one pair of identical code at most, so
these pairs are independent of each other; and each recording with a regression is in one pair, against a baseline
drawn from those without.  With three and five, sides are drawn from the same recordings again and again: no recording
is on both sides of a pair, but pairs share recordings, so their rates are the honest means and their spread is wider
than as many independent pairs would have.

The peers' rules judge the same pairs: p99 of iterations more than 1.2 times as long; Mann and Whitney's test of the
iterations' lengths, p < .001; and what pytest-benchmark's ``--benchmark-compare-fail`` offers, with ``min:5%`` and
``mean:5%``, on the latencies of requests.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import erfc, sqrt
from pathlib import Path
from statistics import fmean

from stallscope.agent.layout import bounds_ns
from stallscope.gate.judge import Before, judge
from stallscope.gate.policy import Policy
from stallscope.gate.runs import Run, run_of
from stallscope.gate.verdict import Verdict
from stallscope.recording.nouns import Call, CallSite, Frame, Recording, Resource, Stack
from stallscope.recording.reader import read
from tests.benchmarks.gate_program import REGRESSIONS

PROGRAM = "gate_program.py"
DAY = date(2026, 1, 1)
RESAMPLED = 200
AMPLE = 15_000
"""Iterations: half of what a run reaches on a machine of its own."""


@dataclass(frozen=True, slots=True)
class Made:
    """One recording, ready to be judged by every rule."""

    regression: str
    hogs: int
    run: Run
    counts: Counter[int]
    latencies_ns: Sequence[int]


Pair = tuple[Sequence[Made], Sequence[Made]]
"""Baseline and current."""


def main() -> None:
    """Print one table of identical code, and one of each regression."""
    options = _options()
    drawn = random.Random(options.seed)
    groups = [[_made(path) for path in sorted(directory.glob("*.json"))] for directory in options.directories]
    for made in groups:
        drawn.shuffle(made)
        clean = sum(one.regression == "none" for one in made)
        print(f"{len(made)} recordings, {clean} of them of identical code; hogs {_spread(made)}")
    for runs in (1, 3, 5):
        print(f"\n{runs} run(s) a side")
        for name in REGRESSIONS:
            _print_row(name, [pair for made in groups for pair in _pairs(made, name, runs, drawn)])


def _pairs(made: Sequence[Made], name: str, runs: int, drawn: random.Random) -> Iterator[Pair]:
    clean = [one for one in made if one.regression == "none"]
    if name == "none":
        yield from _identical(clean, runs, drawn)
    else:
        yield from _regressed(clean, [one for one in made if one.regression == name], runs, drawn)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIRECTORY")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def _made(sidecar: Path) -> Made:
    own = json.loads(sidecar.read_text())
    regression, hogs, _ = sidecar.stem.split("-")
    recording = _with_calls(read(sidecar.with_suffix(".stall")), own["sites"])
    run = run_of(recording, recording.threshold_ns, lambda file: file.rpartition("/")[2])
    facts = replace(run.facts, cpu_ns=round(own["cpu_s"] * 1e9))
    counts = sum((Counter(loop.counts) for loop in recording.loops), Counter[int]())
    return Made(regression, int(hogs), replace(run, facts=facts), counts, own["latencies_ns"])


def _with_calls(recording: Recording, sites: Sequence[Sequence[object]]) -> Recording:
    """The recording with the call sites that the program counted, and without the frames that counted them."""
    found = tuple(_call_site(*site) for site in sites)  # type: ignore[arg-type]
    stalls = tuple(
        stall._replace(spans=tuple(span._replace(stack=_uncounted(span.stack)) for span in stall.spans))
        for stall in recording.stalls
    )
    return recording._replace(stalls=stalls, call_sites=recording.call_sites or found)


def _call_site(call: str, kind: str, stack: Sequence[tuple[str, int, str]], totals: Sequence[int]) -> CallSite:
    frames = tuple(Frame(*frame) for frame in stack)
    return CallSite(1, None, Call(call, Resource(kind, "")), frames, *totals)  # type: ignore[arg-type]


def _uncounted(stack: Stack) -> Stack:
    return tuple(frame for frame in stack if not ("Calls." in frame.function and frame.file.endswith(PROGRAM)))


def _identical(clean: Sequence[Made], runs: int, drawn: random.Random) -> Iterator[Pair]:
    if runs == 1:
        yield from (([a], [b]) for a, b in zip(clean[::2], clean[1::2], strict=False))
        return
    for _ in range(RESAMPLED):
        several = drawn.sample(clean, 2 * runs)
        yield several[:runs], several[runs:]


def _regressed(clean: Sequence[Made], worse: Sequence[Made], runs: int, drawn: random.Random) -> Iterator[Pair]:
    if runs == 1:
        yield from (([drawn.choice(clean)], [one]) for one in worse)
        return
    for _ in range(RESAMPLED if len(worse) >= runs else 0):
        yield drawn.sample(clean, runs), drawn.sample(worse, runs)


def verdict_on(pair: Pair) -> Verdict:
    """What the gate says."""
    baseline, current = pair
    places = frozenset(place for one in baseline for place in one.run.sites)
    before = Before(tuple(one.run.facts for one in baseline), places)
    return judge([one.run for one in current], before, Policy(), DAY)


def _print_row(name: str, pairs: Sequence[Pair]) -> None:
    if not pairs:
        return
    verdicts = [verdict_on(pair) for pair in pairs]
    failed = Counter(one.rule for verdict in verdicts for one in verdict.results if one.outcome == "fail")
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    told = "identical" if name == "none" else name
    print(f"  {told}: {len(pairs)} pairs: " + ", ".join(f"{what} {n}" for what, n in outcomes.most_common()))
    print(f"    gate    {outcomes['fail'] / len(pairs):.3f}  " + _rules(failed, len(pairs)))
    unshown = [any(one.outcome == "inconclusive" for one in verdict.results) for verdict in verdicts]
    silent = fmean(not verdict.failed and not told for verdict, told in zip(verdicts, unshown, strict=True))
    print(f"            {silent:.3f} neither failed nor said that the data could not have shown it")
    ample = [verdict.failed for verdict, pair in zip(verdicts, pairs, strict=True) if _is_ample(pair)]
    if ample:
        print(f"    gate    {fmean(ample):.3f}  of the {len(ample)} with {AMPLE:,} iterations a run or more")
    warned = Counter(one.rule for verdict in verdicts for one in verdict.results if one.outcome == "warn")
    if warned:
        print(f"    warned         {_rules(warned, len(pairs))}")
    for rule, says in PEERS.items():
        print(f"    {says_rate(says, pairs):.3f}  {rule}")


def _is_ample(pair: Pair) -> bool:
    """Whether no run of either side is one that a loaded machine starved."""
    return all(one.run.facts.iterations >= AMPLE for side in pair for one in side)


def says_rate(says: Callable[[Pair], bool], pairs: Sequence[Pair]) -> float:
    """In what share of the pairs a rule says worse."""
    return fmean(says(pair) for pair in pairs)


def _rules(counted: Counter[str], pairs: int) -> str:
    return ", ".join(f"{rule} {n / pairs:.3f}" for rule, n in counted.most_common())


def _spread(made: Sequence[Made]) -> str:
    return ", ".join(f"{hogs}: {n}" for hogs, n in sorted(Counter(one.hogs for one in made).items()))


def p99_grew(pair: Pair) -> bool:
    """p99 of iterations more than 1.2 times as long."""
    before, now = (_p99_ns(_pooled(side)) for side in pair)
    return now > 1.2 * before


def mann_whitney(pair: Pair) -> bool:
    """One-sided p < .001 for longer iterations: the normal approximation with ties, on the histograms' buckets."""
    before, now = (_pooled(side) for side in pair)
    n, m = before.total(), now.total()
    below, u, ties = 0, 0.0, 0.0
    for bucket in sorted(before | now):
        u += now[bucket] * (below + before[bucket] / 2)
        below += before[bucket]
        tied = before[bucket] + now[bucket]
        ties += tied**3 - tied
    variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
    return erfc((u - n * m / 2) / sqrt(2 * variance)) / 2 < 0.001


def minimum_grew(pair: Pair) -> bool:
    """pytest-benchmark's ``min:5%``."""
    before, now = (min(one.latencies_ns[0] for one in side) for side in pair)
    return now > 1.05 * before


def mean_grew(pair: Pair) -> bool:
    """pytest-benchmark's ``mean:5%``."""
    before, now = (fmean(fmean(one.latencies_ns) for one in side) for side in pair)
    return now > 1.05 * before


PEERS: dict[str, Callable[[Pair], bool]] = {
    "p99 > 1.2 times": p99_grew,
    "Mann-Whitney p < .001": mann_whitney,
    "pytest-benchmark min:5%": minimum_grew,
    "pytest-benchmark mean:5%": mean_grew,
}


def _pooled(side: Sequence[Made]) -> Counter[int]:
    return sum((one.counts for one in side), Counter[int]())


def _p99_ns(counts: Counter[int]) -> int:
    left = counts.total() * 0.01
    for bucket in sorted(counts, reverse=True):
        left -= counts[bucket]
        if left <= 0:
            return bounds_ns(bucket)[1]
    return 0


if __name__ == "__main__":
    main()
