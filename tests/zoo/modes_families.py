"""Labelled histograms of iteration lengths, made from seeds: the truth that the mode finder is measured against.

A histogram is drawn as an exact multinomial: the count of a cell is split in two, again and again, by binomial draws,
so that ten million iterations cost a millisecond a thousand cells and no sample is ever materialised.  Components
of a mixture are drawn apart, hence the truth (how many stalls, and their own median) is known to the iteration.
The same iterations are then read through two rulers: fine buckets (32 linear sub-buckets an octave, ns) and the log2
microsecond buckets of funclatency.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from random import Random

from stallscope.analysis.modes import Bins

Cdf = Callable[[float], float]

FIRST_OCTAVE, LAST_OCTAVE = 6, 50  # 64 ns to thirteen days: no tail is ever clipped into a false lump at the end
FINE_EDGES = [0.0] + [
    2.0**octave * (1 + step / 32) for octave in range(FIRST_OCTAVE, LAST_OCTAVE) for step in range(32)
]
LOG2_EDGES = [0.0] + [1000.0 * 2.0**octave for octave in range(1, 41)]
MOST_ITERATIONS = 10_000_000
CELL_EDGES = sorted({*FINE_EDGES, *LOG2_EDGES})  # both rulers are unions of these cells


@dataclass(frozen=True, slots=True)
class Component:
    """One mode of the truth: how many iterations fell into it, and their sample median."""

    iterations: int
    median_ns: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """A histogram and its truth: `components` fastest first, one for a unimodal histogram."""

    family: str
    components: tuple[Component, ...]
    fine: Bins
    log2: Bins

    @property
    def separation_octaves(self) -> float:
        """The distance between the two fastest components' medians."""
        fast, slow = self.components[:2]
        return math.log2(slow.median_ns / fast.median_ns)


# -- distributions, as cumulative functions of a unit that `at_median` scales ----------------------------------------


def lognormal(sigma: float) -> Cdf:
    return lambda x: 0.5 * math.erfc(-math.log(x) / (sigma * math.sqrt(2))) if x > 0 else 0.0


def weibull(shape: float) -> Cdf:
    return lambda x: -math.expm1(-(x**shape)) if x > 0 else 0.0


def exponential() -> Cdf:
    return weibull(1.0)


def pareto(alpha: float) -> Cdf:
    return lambda x: 1 - x**-alpha if x > 1 else 0.0


def lomax(alpha: float) -> Cdf:
    return lambda x: 1 - (1 + x) ** -alpha


def uniform(ratio: float) -> Cdf:
    return lambda x: min(1.0, max(0.0, (x - 1) / (ratio - 1)))


def normal(spread: float) -> Cdf:
    """A normal of mean 1, cut at zero."""
    below_zero = 0.5 * math.erfc(1 / (spread * math.sqrt(2)))
    return lambda x: max(0.0, 0.5 * math.erfc((1 - x) / (spread * math.sqrt(2))) - below_zero) / (1 - below_zero)


def gamma(shape: float) -> Cdf:
    """The regularised lower incomplete gamma function, by its power series (Abramowitz and Stegun 6.5.29)."""

    def cdf(x: float) -> float:
        if x <= 0:
            return 0.0
        if x > shape + 40 * (1 + math.sqrt(shape)):
            return 1.0
        term = total = 1 / shape
        step = shape
        while term > total * 1e-16:
            step += 1
            term *= x / step
            total += term
        return min(1.0, total * math.exp(shape * math.log(x) - x - math.lgamma(shape)))

    return cdf


def blend(*parts: tuple[float, Cdf]) -> Cdf:
    return lambda x: sum(weight * cdf(x) for weight, cdf in parts)


def stretched(cdf: Cdf, factor: float) -> Cdf:
    return lambda x: cdf(x / factor)


def at_median(cdf: Cdf, median_ns: float) -> Cdf:
    """`cdf` scaled so that its median is `median_ns`."""
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cdf(middle) < 0.5 else (low, middle)
    return stretched(cdf, median_ns / high)


def ticking(cdf: Cdf, tick_ns: float) -> Cdf:
    """What a clock of that tick shows: whole ticks only.  Exact at every cell edge, since [lo, hi) holds the ticks
    from ceil(lo) to ceil(hi)."""
    return lambda x: cdf(math.ceil(x / tick_ns - 1e-9) * tick_ns)


# -- drawing ---------------------------------------------------------------------------------------------------------


def binomial(rng: Random, n: int, p: float) -> int:
    """An exact binomial draw in O(log n): the middle of n ordered uniforms is a beta variate (Devroye 1986, X.4)."""
    hits = 0
    while n > 24:
        if p <= 0 or p >= 1:
            return hits + (n if p >= 1 else 0)
        middle = (n + 1) // 2
        pivot = rng.betavariate(middle, n + 1 - middle)
        if pivot <= p:
            hits, n, p = hits + middle, n - middle, (p - pivot) / (1 - pivot) if pivot < 1 else 1.0
        else:
            n, p = middle - 1, p / pivot
    return hits + sum(rng.random() < p for _ in range(n))


def draw(rng: Random, cdf: Cdf, n: int) -> list[int]:
    """`n` iterations thrown into the cells of CELL_EDGES."""
    heights = [cdf(edge) for edge in CELL_EDGES]
    heights[-1] = 1.0
    counts = [0] * (len(heights) - 1)
    parts = [(0, len(counts), n)]
    while parts:
        low, high, left = parts.pop()
        if not left:
            continue
        if high - low == 1:
            counts[low] = left
            continue
        middle = (low + high) // 2
        mass = heights[high] - heights[low]
        first = binomial(rng, left, (heights[middle] - heights[low]) / mass) if mass > 0 else left
        parts += [(low, middle, first), (middle, high, left - first)]
    return counts


def sample_median_ns(rng: Random, counts: list[int]) -> float:
    """The median of the very iterations drawn: within its cell the r-th of m uniforms is a beta variate."""
    below = [0, *accumulate(counts)]
    rank = (below[-1] + 1) // 2
    cell = bisect_left(below, rank) - 1
    within, crowd = rank - below[cell], counts[cell]
    low, high = CELL_EDGES[cell : cell + 2]
    return low + (high - low) * rng.betavariate(within, crowd + 1 - within)


def bins(counts: list[int], edges: list[float], per_octave: int, tick_ns: float) -> Bins:
    """The cells read through a coarser ruler, all of it, empty buckets included."""
    below = dict(zip(CELL_EDGES, [0, *accumulate(counts)], strict=True))
    return Bins(tuple(edges), tuple(below[high] - below[low] for low, high in pairwise(edges)), tick_ns, per_octave)


def labelled(rng: Random, family: str, parts: list[tuple[Cdf, int]], tick_ns: float = 0.0) -> Labelled:
    """Draw each component of `parts` (its distribution, its iterations) and label the sum."""
    drawn = [draw(rng, cdf, n) for cdf, n in parts]
    truth = tuple(Component(sum(counts), sample_median_ns(rng, counts)) for counts in drawn)
    total = [sum(cell) for cell in zip(*drawn, strict=True)]
    return Labelled(family, truth, bins(total, FINE_EDGES, 4, tick_ns), bins(total, LOG2_EDGES, 1, tick_ns))


def log_uniform(rng: Random, low: float, high: float) -> float:
    return low * math.exp(rng.random() * math.log(high / low))


# -- the corpus ------------------------------------------------------------------------------------------------------


def _still_unimodal(rng: Random) -> Cdf:
    """Mixtures without a second mode: one centre and two spreads, or centres under two standard deviations apart
    (which equal normals, here in log time, merge into one peak)."""
    sigma, weight = rng.uniform(0.1, 0.6), log_uniform(rng, 1e-3, 0.5)
    if rng.random() < 0.5:
        return blend((1 - weight, lognormal(sigma)), (weight, lognormal(sigma * rng.uniform(2, 4))))
    apart = math.exp(rng.uniform(0.5, 2) * sigma)
    return blend((1 - weight, lognormal(sigma)), (weight, stretched(lognormal(sigma), apart)))


UNIMODAL: dict[str, Callable[[Random], Cdf]] = {
    "lognormal": lambda rng: lognormal(rng.uniform(0.05, 1.5)),
    "gamma": lambda rng: gamma(log_uniform(rng, 0.7, 30)),
    "exponential": lambda rng: exponential(),
    "heavy tail": lambda rng: rng.choice((pareto, lomax))(rng.uniform(1, 3)),
    "Weibull": lambda rng: weibull(rng.uniform(0.5, 5)),
    "uniform": lambda rng: uniform(log_uniform(rng, 1.1, 100)),
    "normal": lambda rng: normal(rng.uniform(0.02, 0.4)),
    "clock ticks": lambda rng: rng.choice((lognormal(rng.uniform(0.1, 1)), exponential(), lomax(2), normal(0.2))),
    "merged mixture": _still_unimodal,
}


def unimodal(rng: Random, family: str) -> Labelled:
    median_ns, n = log_uniform(rng, 5e3, 5e7), round(log_uniform(rng, 200, 1e6))
    cdf, tick_ns = at_median(UNIMODAL[family](rng), median_ns), 0.0
    if family == "clock ticks":
        tick_ns = median_ns / log_uniform(rng, 0.5, 300)
        cdf = ticking(cdf, tick_ns)
    return labelled(rng, family, [(cdf, n)], tick_ns)


def _main(rng: Random) -> Cdf:
    shapes = (lognormal(rng.uniform(0.1, 0.5)), gamma(log_uniform(rng, 4, 30)), normal(rng.uniform(0.05, 0.3)))
    return rng.choice(shapes)


def _slow(rng: Random) -> Cdf:
    """A stall mode's own shape: a device's service time, narrow or wide, or a timer's."""
    narrow = (lognormal(rng.uniform(0.05, 0.5)), normal(rng.uniform(0.02, 0.3)), uniform(rng.uniform(1.2, 4)))
    return rng.choice((*narrow, weibull(rng.uniform(1.2, 4)), gamma(log_uniform(rng, 1.5, 30))))


def mixture(rng: Random, slow_shape: Callable[[Random], Cdf] = _slow) -> Labelled:
    """A stall mode of 10 to 5,000 stalls, minor mass 1e-5 to 0.5, one to eight octaves above the main mode."""
    mass, separation = log_uniform(rng, 1e-5, 0.5), rng.uniform(1, 8)
    slow_ns, stalls = log_uniform(rng, 1e6, 1e9), log_uniform(rng, 10, 5000)
    n = round(min(stalls / mass, MOST_ITERATIONS))
    slow = max(1, round(n * mass))
    main = at_median(_main(rng), slow_ns / 2**separation)
    return labelled(rng, "mixture", [(main, max(slow, n - slow)), (at_median(slow_shape(rng), slow_ns), slow)])


def endless_mixture(rng: Random) -> Labelled:
    """A mixture whose stalls are exponential: they begin at zero and fill their own valley.  The hardest case."""
    return mixture(rng, lambda _: exponential())


def trimodal(rng: Random) -> Labelled:
    """Three modes, three to five octaves apart, the slower two of at least 50 stalls."""
    n, median_ns = round(log_uniform(rng, 5e3, 1e6)), log_uniform(rng, 5e4, 2e6)
    parts = [(at_median(_main(rng), median_ns), n)]
    for _ in range(2):
        median_ns *= 2 ** rng.uniform(3, 5)
        slow = lognormal(rng.uniform(0.05, 0.35))
        parts.append((at_median(slow, median_ns), round(log_uniform(rng, 50, 0.3 * n))))
    return labelled(rng, "trimodal", parts)


def corpus(seed: int, unimodals: int, mixtures: int, trimodals: int, endless: int = 0) -> list[Labelled]:
    """One seed's share of the corpus; the same seed always gives the same histograms."""
    rng, families = Random(seed), list(UNIMODAL)
    histograms = [unimodal(rng, families[i % len(families)]) for i in range(unimodals)]
    histograms += [mixture(rng) for _ in range(mixtures)]
    histograms += [trimodal(rng) for _ in range(trimodals)]
    return histograms + [replace(endless_mixture(rng), family="endless mixture") for _ in range(endless)]
