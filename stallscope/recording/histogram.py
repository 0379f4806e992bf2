"""What the buckets of our histograms stand for: one rule for all who count or sum by them."""

from __future__ import annotations

from bisect import bisect_left

from stallscope.agent.layout import BUCKETS, bounds_ns

_MIDDLES_NS = [sum(bounds_ns(bucket)) // 2 for bucket in range(BUCKETS)]


def middle_ns(bucket: int) -> int:
    """What each iteration of a bucket counts as, to 1.6 %."""
    return _MIDDLES_NS[bucket]


def first_reaching(duration_ns: int) -> int:
    """The first bucket whose iterations count as so long or longer: by its middle; ``BUCKETS`` where none does.

    Of the bucket that holds a threshold, some iterations are stalls and some are not.  To count all of them, or none,
    errs by the whole of it: ten thousand of 9.97 ms would be stalls of 10, or as many of 10.1 ms would not.
    """
    return bisect_left(_MIDDLES_NS, duration_ns)
