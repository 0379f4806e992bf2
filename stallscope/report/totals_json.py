"""All loops of a recording taken as one, and a what-if, as JSON."""

from __future__ import annotations

from stallscope.analysis.findings import Prediction, Totals
from stallscope.analysis.modes import Mode
from stallscope.report.json_values import Json, milliseconds, rounded_share, seconds


def totals(one: Totals) -> Json:
    """The figures of all loops together."""
    p, felt = one.percentiles, one.arrival
    lengths = {"p50": p.p50_ns, "p90": p.p90_ns, "p99": p.p99_ns, "p99_9": p.p99_9_ns, "max": p.max_ns} if p else {}
    return {
        "loops": one.loops,
        "wall_s": seconds(one.wall_ns),
        "iterations": one.iterations,
        "stalls": {
            "count": one.stall_count,
            "total_ms": milliseconds(one.stall_ns),
            "wall_share": rounded_share(one.stall_wall_share),
        },
        "latency_ms": {name: milliseconds(ns) for name, ns in lengths.items()},
        "log2": [{"lo_us": row.lo_us, "hi_us": row.hi_us, "count": row.count} for row in one.log2],
        "shape": one.modality.shape,
        "modes": [mode_dict(mode) for mode in one.modality.modes],
        "arrival": {
            "p_wait_over_threshold": rounded_share(felt.p_wait_over_threshold) if felt else None,
            "mean_wait_ms": round(felt.mean_wait_ms, 6) if felt else None,
            "p99_wait_ms": round(felt.p99_wait_ms, 6) if felt else None,
        },
    }


def prediction(one: Prediction) -> Json:
    """A what-if: what it takes away, and what would be left."""
    return {
        "culprits": list(one.removal.culprits),
        "causes": list(one.removal.causes),
        "removed_ms": milliseconds(one.removed_ns),
        "stall_wall_share": rounded_share(one.share_expected),
        "stall_wall_share_if_clients_wait": rounded_share(one.share_if_clients_wait),
        **totals(one.totals),
    }


def mode_dict(mode: Mode) -> Json:
    """One mode."""
    return {
        "lo_ms": milliseconds(mode.lo_ns),
        "hi_ms": milliseconds(mode.hi_ns),
        "peak_ms": milliseconds(mode.peak_ns),
        "iterations": mode.iterations,
        "share": rounded_share(mode.share),
        "stall_mode": mode.stall_mode,
    }
