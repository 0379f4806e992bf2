"""Chance, against what can be counted by hand or by brute force."""

from __future__ import annotations

import math
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stallscope.gate.chance import binomial_tail, events_needed, fresh_p, rank_p, rate_p


@given(n=st.integers(1, 60), data=st.data(), q=st.floats(0.01, 0.99))
def test_the_tail_is_the_sum_of_its_terms(n: int, data: st.DataObject, q: float) -> None:
    k = data.draw(st.integers(0, n))
    expected = sum(comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k, n + 1))
    assert binomial_tail(k, n, q) == pytest.approx(expected, rel=1e-9)


def test_the_tail_of_thousands() -> None:
    assert binomial_tail(5_000, 10_000, 0.5) == pytest.approx(0.504, abs=0.001)
    assert binomial_tail(5_300, 10_000, 0.5) < 1e-8
    assert binomial_tail(11, 10, 0.5) == 0


def test_eight_stalls_where_the_baseline_has_none_are_beyond_chance() -> None:
    assert rate_p(8, 0, 1.0, 1.0, 1.25) == pytest.approx((1.25 / 2.25) ** 8)
    assert events_needed(0, 1.0, 1.0, 1.25, 0.01) == 8


@given(baseline=st.integers(0, 200), now=st.floats(0.1, 10), ratio=st.floats(1, 3))
def test_the_fewest_events_needed_are_the_fewest(baseline: int, now: float, ratio: float) -> None:
    needed = events_needed(baseline, now, 1.0, ratio, 0.01)
    assert rate_p(needed, baseline, now, 1.0, ratio) < 0.01
    assert rate_p(needed - 1, baseline, now, 1.0, ratio) >= 0.01


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_the_ranks_are_those_of_all_arrangements(larger: list[int], smaller: list[int]) -> None:
    both = sorted([*larger, *smaller])

    def rank(value: int) -> float:
        return sum(at + 1 for at, one in enumerate(both) if one == value) / both.count(value)

    seen = sum(map(rank, larger))
    sums = [sum(map(rank, chosen)) for chosen in combinations(both, len(larger))]
    assert rank_p(larger, smaller) == pytest.approx(sum(one >= seen - 1e-9 for one in sums) / len(sums))


def test_three_against_three_show_no_less_than_a_twentieth() -> None:
    assert rank_p([4, 5, 6], [1, 2, 3]) == pytest.approx(0.05)
    assert rank_p([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) == pytest.approx(1 / 252)


@pytest.mark.parametrize(("k", "room"), [(2, 5.0), (3, 2.0), (4, 1.0), (7, 0.5)])
def test_no_rate_is_worse_than_the_worst(k: int, room: float) -> None:
    def at(expected: float) -> float:
        fewer = sum(math.exp(-expected) * expected**i / math.factorial(i) for i in range(k))
        return math.exp(-room * expected) * (1 - fewer)

    worst = max(at(step / 100) for step in range(1, 2000))
    assert fresh_p(k, room) == pytest.approx(worst, rel=1e-3)
    assert fresh_p(k + 1, room) < fresh_p(k, room) < fresh_p(0, room) == 1.0
