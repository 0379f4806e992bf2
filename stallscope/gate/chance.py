"""What chance alone makes of two counts, or of two handfuls of figures; exact, from the standard library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import exp, lgamma, log


def binomial_tail(k: int, n: int, q: float) -> float:
    """P(at least `k` of `n`), each with the chance `q` (0 < q < 1)."""
    if k <= 0:
        return 1.0
    if k > n:
        return 0.0
    term = exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(q) + (n - k) * log(1 - q))
    total = 0.0
    for i in range(k, n + 1):
        total += term
        term *= (n - i) / (i + 1) * q / (1 - q)
        if term < total * 1e-12 and i > n * q:
            break
    return min(1.0, total)


def rate_p(current: int, baseline: int, current_exposure: float, baseline_exposure: float, ratio: float) -> float:
    """The chance of so many events or more in the current run if its rate is `ratio` times the baseline's.

    Given the sum of two Poisson counts, one of them is binomial (Przyborowski and Wilenski 1940).
    """
    weight = ratio * current_exposure
    return binomial_tail(current, current + baseline, weight / (weight + baseline_exposure))


def events_needed(baseline: int, current_exposure: float, baseline_exposure: float, ratio: float, p: float) -> int:
    """The fewest events in the current run that `rate_p` finds less probable than `p`."""
    low, high = 0, 8
    while rate_p(high, baseline, current_exposure, baseline_exposure, ratio) >= p:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if rate_p(middle, baseline, current_exposure, baseline_exposure, ratio) >= p:
            low = middle
        else:
            high = middle
    return high


def fresh_p(k: int, room: float) -> float:
    """The chance that a baseline has none of what the current runs have `k` times or more, at whatever rate it comes.

    The baseline did `room` times the work.  Given the rate, both counts are Poisson's; the worst rate is taken, so no
    rate has a greater chance (an unconditional test, as Barnard's of two proportions).
    """

    if k == 0:
        return 1.0

    def at(expected: float) -> float:
        fewer = sum(exp(i * log(expected) - expected - lgamma(i + 1)) for i in range(k))
        return exp(-room * expected) * max(0.0, 1 - fewer)

    low, high = 1e-9, float(k + 1)  # one peak between: at k events or more expected the first factor falls faster
    for _ in range(60):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (a, high) if at(a) < at(b) else (low, b)
    return at(low)


def rank_p(larger: Sequence[float], smaller: Sequence[float]) -> float:
    """That `larger` ranks so high by chance: the exact one-sided p of Mann and Whitney's U, ties included."""
    both = sorted([*larger, *smaller])
    # Twice the mean rank of equals, which is a whole number.
    rank = {value: 2 * both.index(value) + both.count(value) + 1 for value in both}
    ways: list[Counter[int]] = [Counter({0: 1})] + [Counter() for _ in larger]
    for value in both:
        for chosen in range(len(larger), 0, -1):
            for total, number in ways[chosen - 1].items():
                ways[chosen][total + rank[value]] += number
    seen = sum(rank[value] for value in larger)
    all_ways = ways[len(larger)]
    return sum(number for total, number in all_ways.items() if total >= seen) / all_ways.total()
