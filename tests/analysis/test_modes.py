"""Modes: tables of what must be said, properties that hold for any histogram, and a thin slice of the corpus."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from math import comb, exp, log2
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stallscope.analysis.modes import Bins, Modality, find_modes, suggested_threshold_ns
from stallscope.analysis.valley import least_stalls, ln_tail
from tests.zoo import modes_corpus
from tests.zoo.modes_families import FINE_EDGES, at_median, bins, corpus, draw, lognormal

MS = 1e6
LOG2_MS = tuple(MS * edge for edge in (0, 2, 4, 8, 16, 32, 64, 128))
DROPBOX = Bins(LOG2_MS, (3799, 0, 0, 0, 409, 313, 128), per_octave=1)


def octaves(*counts: int, first_ns: float = 1000.0) -> Bins:
    """A log2 histogram whose first bucket begins at `first_ns`."""
    return Bins(tuple(first_ns * 2.0**k for k in range(len(counts) + 1)), counts, per_octave=1)


def fine(*lumps: tuple[float, int]) -> Bins:
    """A fine histogram of narrow lumps, each (median in ms, iterations)."""
    rng = Random(1)
    drawn = [draw(rng, at_median(lognormal(0.1), at_ms * MS), n) for at_ms, n in lumps]
    return bins([sum(cell) for cell in zip(*drawn, strict=True)], FINE_EDGES, 4, 0.0)


def positions_ms(modality: Modality) -> list[float]:
    return [mode.peak_ns / MS for mode in modality.modes]


# -- what must be said -----------------------------------------------------------------------------------------------


def test_dropboxs_nginx_is_bimodal() -> None:
    found = find_modes(DROPBOX)
    fast, slow = found.modes
    assert found.shape == "bimodal"
    assert suggested_threshold_ns(found) == pytest.approx(5.66 * MS, rel=0.001)
    assert (slow.lo_ns, slow.hi_ns, slow.iterations, slow.stall_mode) == (16 * MS, 128 * MS, 850, True)
    assert slow.share == pytest.approx(0.183, abs=0.0005)
    assert 16 * MS < slow.peak_ns < 64 * MS
    assert (fast.iterations, fast.stall_mode) == (3799, False)
    assert (found.valleys[0].left, found.valleys[0].right, found.valleys[0].gap_octaves) == (3799, 850, 3.0)
    assert found.note == ""


@pytest.mark.parametrize(
    ("lumps", "shape", "at_ms", "stall_modes"),
    [
        (((0.1, 5000),), "unimodal", [0.1], [False]),
        (((0.1, 5000), (50, 10)), "bimodal", [0.1, 50], [False, True]),
        (((0.1, 100_000), (50, 10)), "bimodal", [0.1, 50], [False, True]),
        (((0.1, 5000), (20, 90), (300, 30)), "multimodal", [0.1, 20, 300], [False, True, True]),
        (((0.1, 100), (50, 5000)), "bimodal", [0.1, 50], [False, True]),  # a loop that stalls in most iterations
        (((0.1, 40), (50, 20)), "bimodal", [0.1, 50], [False, True]),  # few iterations, but they prove it
        (((0.1, 5000), (3.5, 90)), "unimodal", [0.1, 3.5], [False, False]),  # under 5 ms: a plain mode
        (((6, 5000), (36, 90)), "unimodal", [6, 36], [False, False]),  # under three octaves: a plain mode
        (((0.1, 5000), (3.5, 90), (100, 90)), "bimodal", [0.1, 3.5, 100], [False, False, True]),
        (((1.5, 20), (12, 5000), (60, 90)), "unimodal", [1.5, 12, 60], [False, False, False]),  # 20 make no main mode
        (((0.02, 5000), (0.3, 900)), "unimodal", [0.0203], [False]),  # both under the floor
    ],
)
def test_shape_counts_stall_modes(
    lumps: tuple[tuple[float, int], ...], shape: str, at_ms: list[float], stall_modes: list[bool]
) -> None:
    found = find_modes(fine(*lumps))
    assert found.shape == shape
    assert positions_ms(found) == pytest.approx(at_ms, rel=0.1)
    assert [mode.stall_mode for mode in found.modes] == stall_modes


def test_the_threshold_lies_below_the_fastest_stall_mode() -> None:
    found = find_modes(fine((0.1, 5000), (3.5, 90), (100, 90)))
    threshold_ns = suggested_threshold_ns(found)
    assert threshold_ns == found.valleys[1].threshold_ns
    assert 3.5 * MS < threshold_ns < 100 * MS


def test_the_threshold_is_sought_above_the_floor() -> None:
    (valley,) = find_modes(fine((0.02, 5000), (50, 10))).valleys
    assert valley.threshold_ns == pytest.approx((1 * 44) ** 0.5 * MS, rel=0.1)  # the middle of 1 to 44 ms


def test_the_threshold_is_the_middle_of_the_emptiest_stretch() -> None:
    (valley,) = find_modes(octaves(10**6, 300, 4, 8, 300, first_ns=MS)).valleys
    assert valley.threshold_ns == pytest.approx(MS * 2**2.5)
    assert valley.gap_octaves == pytest.approx(1)


@pytest.mark.parametrize(("valley", "modes"), [(70_000, 1), (40_000, 2)])
def test_a_dent_is_no_valley(valley: int, modes: int) -> None:
    """However sure it is: the sides must be twice as dense."""
    assert len(find_modes(octaves(10**6, valley, 10**5, 10**3, first_ns=MS)).modes) == modes


@pytest.mark.parametrize("lumps", [((0.1, 5000),), ((0.1, 5000), (3.5, 90))])
def test_no_stall_mode_suggests_no_threshold(lumps: tuple[tuple[float, int], ...]) -> None:
    assert suggested_threshold_ns(find_modes(fine(*lumps))) is None


@pytest.mark.parametrize(
    ("lumps", "shape", "note"),
    [
        (((0.1, 4),), "too-few", "4 iterations: too few to confirm any stall mode"),
        (((0.1, 69),), "too-few", "69 iterations: a stall mode rarer than 10 % could not be confirmed"),
        (((0.1, 70),), "unimodal", "70 iterations: a stall mode rarer than 10 % could not be confirmed"),
        (((0.1, 2000),), "unimodal", "2,000 iterations: a stall mode rarer than 0.35 % could not be confirmed"),
        (((0.1, 2000),), "unimodal", "none seen: rate below 0.15 % (95 %)"),
        (((0.1, 10**6),), "unimodal", ""),
        (((0.1, 2000), (50, 4)), "unimodal", "suspected second mode: 4 iterations near 50 ms; record about three"),
        (((0.1, 60), (50, 3)), "too-few", "suspected second mode: 3 iterations near 5"),
        (((0.1, 2000), (3.5, 90)), "unimodal", "plain mode, no stall mode: 90 iterations near 3.5 ms"),
        (((0.1, 2000), (3.5, 90), (90, 4)), "unimodal", "suspected second mode: 4 iterations near 9"),
    ],
)
def test_notes(lumps: tuple[tuple[float, int], ...], shape: str, note: str) -> None:
    found = find_modes(fine(*lumps))
    assert found.shape == shape
    assert note in found.note
    assert bool(note) == bool(found.note)


def test_a_stall_that_proves_nothing_is_not_called_unseen() -> None:
    found = find_modes(fine((0.1, 2000), (50, 1)))
    assert found.note == "2,001 iterations: a stall mode rarer than 0.35 % could not be confirmed"


# -- the edges of what a histogram can be ----------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [Bins((), ()), Bins((0.0, 10.0), (0,)), octaves(0, 0, 0)])
def test_an_empty_histogram(empty: Bins) -> None:
    assert find_modes(empty) == Modality("too-few", (), (), "no iterations were recorded")


@pytest.mark.parametrize("edges", [(0.0, 2 * MS), (2 * MS, 4 * MS), (0.0, 1e-3), (1.0, 1e15)])
def test_one_bucket_is_one_mode(edges: tuple[float, float]) -> None:
    found = find_modes(Bins(edges, (5000,)))
    (mode,) = found.modes
    assert (found.shape, mode.iterations, mode.share) == ("unimodal", 5000, 1.0)
    assert edges[0] <= mode.lo_ns <= mode.peak_ns <= mode.hi_ns <= edges[1]


def test_a_trillion_iterations() -> None:
    found = find_modes(octaves(10**12, 10**9, 10**6, 10**3, 0, 0, 10**5, 10**8, 10**5, first_ns=MS))
    assert found.shape == "bimodal"
    assert found.modes[1].iterations == 2 * 10**5 + 10**8
    assert find_modes(octaves(10**6, 10**9, 10**12, 10**10, 10**8, 10**3, 1, first_ns=MS)).shape == "unimodal"


def test_a_gap_of_one_giant_bucket() -> None:
    found = find_modes(Bins((0.0, MS, 1e11, 2e11), (5000, 0, 50)))
    assert found.shape == "bimodal"
    assert MS < found.valleys[0].threshold_ns < 1e11


def test_a_bucket_from_zero_is_no_dense_octave() -> None:
    """The left tail of a Weibull of shape 0.5, all in the bucket [0, 2 us), once looked like a mode of its own."""
    tail = Bins((0.0, *(1000.0 * 2**k for k in range(1, 7))), (3400, 1400, 2000, 2800, 4000, 5600), per_octave=1)
    assert len(find_modes(tail, floor_ns=1000).modes) == 1


@pytest.mark.parametrize(("tick_ns", "modes"), [(0.0, 2), (1 * MS, 1)])
def test_gaps_under_sixteen_ticks_are_the_clocks(tick_ns: float, modes: int) -> None:
    """1 ms and 5 ms from a clock of whole milliseconds, on buckets finer than that."""
    edges = tuple(MS * 2 ** (k / 8) for k in range(40))
    counts = [0] * 39
    counts[0], counts[18] = 5000, 700
    assert len(find_modes(Bins(edges, tuple(counts), tick_ns)).modes) == modes


@pytest.mark.parametrize(
    ("edges", "counts", "complaint"),
    [
        ((0.0, 1.0), (1, 2), "2 counts need 3 edges, not 2"),
        ((0.0, 2.0, 1.0), (1, 2), "ascend"),
        ((0.0, 2.0, 2.0), (1, 2), "ascend"),
        ((-1.0, 2.0), (1,), "ascend"),
        ((1.0, float("inf")), (1,), "finite"),
        ((1.0, float("nan"), 2.0), (1, 1), "ascend"),
        ((1.0, 2.0), (-1,), "negative"),
    ],
)
def test_what_is_no_histogram_is_refused(edges: tuple[float, ...], counts: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Bins(edges, counts)


@pytest.mark.parametrize(("tick_ns", "per_octave"), [(-1.0, 4), (float("inf"), 4), (0.0, 0)])
def test_what_is_no_ruler_is_refused(tick_ns: float, per_octave: int) -> None:
    with pytest.raises(ValueError, match="no clock ticks"):
        Bins((1.0, 2.0), (1,), tick_ns, per_octave)


def test_more_buckets_an_octave_than_four_change_nothing() -> None:
    histogram = fine((0.1, 5000), (50, 10))
    assert find_modes(replace(histogram, per_octave=32)) == find_modes(histogram)


def test_a_main_mode_half_in_the_bucket_from_zero() -> None:
    found = find_modes(Bins((0.0, *(MS * 2**k for k in range(8))), (30, 28, 0, 0, 0, 6, 0, 0), per_octave=1))
    assert found.shape == "bimodal"  # the 28, an octave wide, prove it; the 30, over fourteen, would not


# -- properties ------------------------------------------------------------------------------------------------------

COUNTS = st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 10**12))
EDGE = st.one_of(st.just(0.0), st.floats(1, 1e14), st.integers(0, 10**6).map(float))


@st.composite
def any_bins(draw: st.DrawFn) -> Bins:
    edges = tuple(sorted(draw(st.sets(EDGE, min_size=2, max_size=60))))
    counts = tuple(draw(st.lists(COUNTS, min_size=len(edges) - 1, max_size=len(edges) - 1)))
    return Bins(edges, counts, draw(st.sampled_from((0.0, 1.0, 1e3, 1e6))), draw(st.sampled_from((1, 4))))


@settings(deadline=None)
@example(Bins((0.0, 1.0, 2.0), (1, 0), 1e6, 1), 0.0)  # all that was counted lasted less than a tick of the clock
@given(any_bins(), st.sampled_from((0.0, 1e3, 1e6)))
def test_modes_partition_the_iterations(histogram: Bins, floor_ns: float) -> None:
    found, total = find_modes(histogram, floor_ns=floor_ns), sum(histogram.counts)
    assert sum(mode.iterations for mode in found.modes) == total
    assert sum(mode.share for mode in found.modes) == pytest.approx(1 if total else 0)
    assert len(found.valleys) == max(0, len(found.modes) - 1)
    assert all(mode.lo_ns <= mode.peak_ns <= mode.hi_ns for mode in found.modes)
    assert all(fast.hi_ns <= slow.lo_ns for fast, slow in pairwise(found.modes))
    assert all(0 <= valley.p <= 1e-3 and valley.left + valley.right == total for valley in found.valleys)
    for fast, valley, slow in zip(found.modes, found.valleys, found.modes[1:], strict=False):
        assert floor_ns <= valley.threshold_ns * 1.001
        assert fast.lo_ns < valley.threshold_ns < slow.hi_ns


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9)), st.lists(st.integers(0, 10**9)))
def test_counts_that_rise_and_fall_once_have_one_mode(rise: list[int], fall: list[int]) -> None:
    counts = sorted(rise) + sorted(fall, reverse=True)
    assert not find_modes(octaves(*counts), floor_ns=1).valleys


@settings(deadline=None)
@given(st.integers(1, 200), st.data(), st.floats(0.05, 0.95))
def test_the_tail_bound_is_a_bound_and_close(n: int, data: st.DataObject, q: float) -> None:
    r = data.draw(st.integers(0, n))
    tail = sum(comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(r, n + 1))
    bound = exp(ln_tail(r, n, q))
    assert bound >= tail * (1 - 1e-9)
    if r > n * q + 2 * (n * q * (1 - q)) ** 0.5:
        assert bound <= tail * 2


@pytest.mark.parametrize(("gap", "stalls"), [(1, 14), (2, 9), (3, 7), (5, 6)])
def test_the_fewest_stalls_that_prove_a_gap(gap: int, stalls: int) -> None:
    assert least_stalls(gap, 1e-4) == stalls


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_the_fewest_stalls_are_enough_and_one_less_is_not(gap: int) -> None:
    enough = least_stalls(gap, 1e-3)
    for stalls, valleys in ((enough, 1), (enough - 1, 0)):
        found = find_modes(octaves(10**6, *[0] * gap, stalls, first_ns=MS))
        assert len(found.valleys) == valleys


# -- accuracy --------------------------------------------------------------------------------------------------------


def test_positions_and_counts_of_a_clean_pair() -> None:
    found = find_modes(fine((0.2, 10**5), (40, 300)))
    assert [mode.iterations for mode in found.modes] == [10**5, 300]
    for at_ms, true_ms in zip(positions_ms(found), (0.2, 40), strict=True):
        assert abs(log2(at_ms / true_ms)) < 0.03


@pytest.mark.parametrize("ruler", modes_corpus.RULERS)
def test_a_slice_of_the_corpus(ruler: str) -> None:
    """The bars of `python -m tests.zoo.modes_corpus` with slack for few histograms."""
    outcomes = [modes_corpus.judge(truth, ruler) for truth in corpus(4, 27, 60, 5)]
    separable = modes_corpus.found(outcomes, stalls=(20, sys.maxsize))
    assert modes_corpus.false_alarms(outcomes) == 0
    assert separable >= 0.9
    assert modes_corpus.all_three(outcomes) >= 0.8
    assert modes_corpus.position_error(outcomes) <= (0.03 if ruler == "fine" else 0.35)
