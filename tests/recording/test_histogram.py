"""Which buckets count as stalls."""

from __future__ import annotations

import pytest

from stallscope.agent.layout import BUCKETS, MAX_NS, bounds_ns, bucket_of
from stallscope.analysis.lengths import lengths
from stallscope.collect.live import Latest
from stallscope.recording.histogram import first_reaching, middle_ns
from tests.analysis.recordings import loop


@pytest.mark.parametrize("threshold_ns", [1, 50, 1_000_000, 9_999_999, 10_000_000, 10_150_000, 10_200_000, 10**9])
def test_all_who_count_stalls_count_the_same(threshold_ns: int) -> None:
    own = bucket_of(threshold_ns)
    counts = dict.fromkeys(range(max(0, own - 3), own + 4), 1)
    latest = Latest(threshold_ns, 0)
    latest.add(1, counts)
    whole = lengths(loop([bounds_ns(bucket)[0] for bucket in counts]), ())
    by_rule = sum(bucket >= first_reaching(threshold_ns) for bucket in counts)
    assert latest.totals.get(1) is not None
    assert latest.totals[1].stalls == by_rule == whole.at_least(threshold_ns)[0]


def test_a_bucket_reaches_what_its_middle_does() -> None:
    for bucket in range(0, bucket_of(MAX_NS), 37):
        assert first_reaching(middle_ns(bucket)) == bucket
        assert first_reaching(middle_ns(bucket) + 1) == bucket + 1
    assert first_reaching(2 * MAX_NS) == BUCKETS
