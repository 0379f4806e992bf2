"""What an arrival feels, against sums over the very iterations, and against arrivals thrown at random moments."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stallscope.analysis.arrival import arrival, buckets, p_wait_longer_than, stall_share, wait_quantile_ns
from stallscope.analysis.modes import Bins
from tests.zoo.modes_families import FINE_EDGES, LOG2_EDGES

MS = 1e6
RULERS = {"fine": (FINE_EDGES, 4), "log2": (LOG2_EDGES, 1)}


class Read:
    """Iterations (ns) read through a ruler, with the sums that a recording may keep."""

    def __init__(self, lengths_ns: list[float], ruler: str) -> None:
        edges, per_octave = RULERS[ruler]
        counts = [0] * (len(edges) - 1)
        self.sums_ns, self.squares_ns2 = [0.0] * len(counts), [0.0] * len(counts)
        for length in lengths_ns:
            at = bisect_right(edges, length) - 1
            counts[at] += 1
            self.sums_ns[at] += length
            self.squares_ns2[at] += length * length
        self.bins = Bins(tuple(edges), tuple(counts), per_octave=per_octave)
        self.kept = {"sums_ns": self.sums_ns, "squares_ns2": self.squares_ns2}


def stalled_loop() -> list[float]:
    """20,000 fast iterations, 300 stalls near 30 ms: 12 s of busy time."""
    rng = Random(1)
    fast = [rng.lognormvariate(12, 0.5) for _ in range(20_000)]
    return fast + [rng.lognormvariate(17.2, 0.4) for _ in range(300)]


LENGTHS = stalled_loop()
WALL_NS = 60e9


def true_share(x_ns: float) -> float:
    return sum(length for length in LENGTHS if length > x_ns) / WALL_NS


def true_p_wait(x_ns: float) -> float:
    return sum(length - x_ns for length in LENGTHS if length > x_ns) / WALL_NS


TRUE_MEAN_MS = sum(length**2 for length in LENGTHS) / (2 * WALL_NS) / MS


@pytest.mark.parametrize("ruler", RULERS)
@pytest.mark.parametrize("x_ms", [0, 0.1, 1, 10, 31.7, 60, 1000])
def test_kept_sums_leave_one_bucket_to_estimate(ruler: str, x_ms: float) -> None:
    read, x_ns = Read(LENGTHS, ruler), x_ms * MS
    felt = arrival(read.bins, WALL_NS, x_ns, **read.kept)
    unsure = read.sums_ns[bisect_right(read.bins.edges_ns, x_ns) - 1] / WALL_NS
    assert felt.p_wait_over_threshold == pytest.approx(true_share(x_ns), rel=1e-9, abs=0.15 * unsure)
    assert felt.p_delay_over_threshold == pytest.approx(true_p_wait(x_ns), rel=1e-9, abs=0.05 * unsure)
    assert felt.mean_wait_ms == pytest.approx(TRUE_MEAN_MS, rel=1e-9)
    assert stall_share(read.bins, WALL_NS, x_ns, sums_ns=read.sums_ns) == felt.p_wait_over_threshold


@pytest.mark.parametrize("ruler", RULERS)
def test_kept_sums_are_exact_at_an_edge(ruler: str) -> None:
    read = Read(LENGTHS, ruler)
    edge_ns = read.bins.edges_ns[bisect_right(read.bins.edges_ns, 20 * MS)]
    felt = arrival(read.bins, WALL_NS, edge_ns, **read.kept)
    assert felt.p_wait_over_threshold == pytest.approx(true_share(edge_ns), rel=1e-9)
    assert felt.p_delay_over_threshold == pytest.approx(true_p_wait(edge_ns), rel=1e-9)


@pytest.mark.parametrize(("ruler", "off"), [("fine", 0.001), ("log2", 0.15)])
def test_bare_counts_estimate_them(ruler: str, off: float) -> None:
    felt = arrival(Read(LENGTHS, ruler).bins, WALL_NS, 10 * MS)
    assert felt.p_wait_over_threshold == pytest.approx(true_share(10 * MS), rel=off)
    assert felt.p_delay_over_threshold == pytest.approx(true_p_wait(10 * MS), rel=off)
    assert felt.mean_wait_ms == pytest.approx(TRUE_MEAN_MS, rel=off)


def test_arrivals_thrown_at_random_moments_feel_it() -> None:
    """The simulation that the formulas stand for: one stall of 100 ms and one of 300 ms in a second."""
    rng, waits = Random(7), []
    stalls = [(0.2, 0.3), (0.5, 0.8)]
    for _ in range(40_000):
        at = rng.random()
        waits.append(sum(end - at for start, end in stalls if start <= at < end))
    waits.sort()
    read = Read([100 * MS, 300 * MS], "fine")
    felt = arrival(read.bins, 1000 * MS, 150 * MS, **read.kept)
    assert felt.p_wait_over_threshold == pytest.approx(0.3)
    assert felt.p_delay_over_threshold == pytest.approx(sum(wait > 0.15 for wait in waits) / 40_000, abs=0.01)
    assert felt.mean_wait_ms == pytest.approx(1000 * sum(waits) / 40_000, rel=0.03)
    assert felt.p99_wait_ms == pytest.approx(1000 * waits[39_600], rel=0.02)


@pytest.mark.parametrize("ruler", RULERS)
@pytest.mark.parametrize("q", [0.85, 0.9, 0.95, 0.99, 0.999])
def test_a_quantile_solves_the_probability(ruler: str, q: float) -> None:
    read = Read(LENGTHS, ruler)
    held = buckets(read.bins, **read.kept)
    wait_ns = wait_quantile_ns(held, WALL_NS, q)
    assert p_wait_longer_than(held, WALL_NS, wait_ns) == pytest.approx(1 - q, rel=1e-3)
    assert true_p_wait(wait_ns) == pytest.approx(1 - q, rel=0.01 if ruler == "fine" else 0.1)


def test_most_arrivals_at_an_idle_loop_wait_for_nothing() -> None:
    assert wait_quantile_ns(buckets(Read(LENGTHS, "fine").bins), WALL_NS, 0.5) == 0


def test_a_wait_shorter_than_every_iteration() -> None:
    """A saturated loop of 10 ms iterations: the wait is uniform from 0 to 10 ms, though no bucket begins there."""
    held = buckets(Bins((10 * MS, 10.001 * MS), (1000,)))
    assert wait_quantile_ns(held, 10_000 * MS, 0.5) == pytest.approx(5 * MS, rel=0.001)


def test_nothing_recorded_is_nothing_felt() -> None:
    felt = arrival(Bins((), ()), WALL_NS, 10 * MS)
    assert (felt.p_wait_over_threshold, felt.p_delay_over_threshold) == (0, 0)
    assert (felt.mean_wait_ms, felt.p99_wait_ms) == (0, 0)


def test_estimates_beyond_the_wall_time_stay_probabilities() -> None:
    felt = arrival(Bins((10 * MS, 20 * MS), (100,), per_octave=1), 1000 * MS, 1 * MS)
    assert (felt.p_wait_over_threshold, felt.p_delay_over_threshold) == (1, 1)


@pytest.mark.parametrize("wall_ns", [0.0, -1.0, float("nan")])
def test_wall_time_must_be_positive(wall_ns: float) -> None:
    for call in (arrival, stall_share):
        with pytest.raises(ValueError, match="wall time must be positive"):
            call(Bins((1.0, 2.0), (1,)), wall_ns, 1.0)


def test_sums_must_match_the_buckets() -> None:
    with pytest.raises(ValueError, match="1 buckets need as many sums"):
        arrival(Bins((1.0, 2.0), (1,)), 10.0, 1.0, sums_ns=[1.0, 2.0])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=50), st.sampled_from(list(RULERS)), st.booleans())
def test_longer_delays_are_never_likelier(lengths_ns: list[float], ruler: str, kept: bool) -> None:
    read = Read(lengths_ns, ruler)
    held = buckets(read.bins, **(read.kept if kept else {}))
    delays = [0.0, *accumulate([1.7] * 60, lambda x, factor: x * factor, initial=1.0)]
    likely = [p_wait_longer_than(held, 1e14, x) for x in delays]
    assert all(0 <= later <= earlier + 1e-9 for earlier, later in pairwise(likely))
    assert likely[-1] == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.floats(0, 1), st.sampled_from((0.0, 3.0, 1e6)))
def test_no_histogram_breaks_a_quantile(counts: list[int], q: float, first_ns: float) -> None:
    edges = (first_ns, *(10.0 ** (k + 7) for k in range(len(counts))))
    held = buckets(Bins(edges, tuple(counts), per_octave=1))
    assert 0 <= wait_quantile_ns(held, 1e9, q) <= edges[-1]
