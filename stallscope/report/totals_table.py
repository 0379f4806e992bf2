"""The figures of two recordings, or of one and a prediction, as rows of a table."""

from __future__ import annotations

from stallscope.analysis.findings import Totals
from stallscope.report.words import duration, percent

UNKNOWN = "unknown"


def rows(left: Totals, right: Totals) -> list[tuple[str, str, str]]:
    """A word and two values in each row: stalls, percentiles, and what an arrival feels."""
    names = [name for name, _ in _values(left)]
    return [(name, a[1], b[1]) for name, a, b in zip(names, _values(left), _values(right), strict=True)]


def _values(one: Totals) -> list[tuple[str, str]]:
    found, felt = one.percentiles, one.arrival
    return [
        ("stalls", f"{one.stall_count:,}"),
        ("stalls, of wall time", UNKNOWN if one.stall_wall_share is None else percent(one.stall_wall_share)),
        ("iterations", f"{one.iterations:,}"),
        ("p50 of iterations", duration(found.p50_ns) if found else UNKNOWN),
        ("p99 of iterations", duration(found.p99_ns) if found else UNKNOWN),
        ("longest iteration", duration(found.max_ns) if found else UNKNOWN),
        ("an arrival waits, on average", duration(felt.mean_wait_ms * 1e6) if felt else UNKNOWN),
        ("an arrival waits, p99", duration(felt.p99_wait_ms * 1e6) if felt else UNKNOWN),
    ]
