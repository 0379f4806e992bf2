"""All loops of a recording taken as one, as a comparison of two recordings needs them."""

from __future__ import annotations

from collections.abc import Sequence

from stallscope.analysis.findings import LoopFindings, Totals
from stallscope.analysis.lengths import Lengths, merged
from stallscope.analysis.loops import felt, log2_rows, percentiles
from stallscope.analysis.modes import Modality, find_modes


def together(loops: Sequence[LoopFindings], threshold_ns: int) -> Totals:
    """The iterations of all loops as one histogram, over the sum of their wall times.

    Coarse histograms of foreign tools do not merge: of several the first, which has the most stall time, stands alone.
    """
    seen = [one for one in loops if one.iterations] or list(loops[:1])
    held = merged([one.held for one in seen]) if len(seen) > 1 else None
    if len(seen) > 1 and held is not None:
        return _merged(seen, held, threshold_ns)
    if not seen:
        return Totals(0, 0, 0, 0, 0, None, (), Modality("too-few", (), (), "no iterations were recorded"), None)
    one = seen[0]
    return Totals(
        loops=1,
        wall_ns=one.wall_ns,
        iterations=one.iterations,
        stall_count=one.stall_count,
        stall_ns=one.stall_ns,
        percentiles=one.percentiles,
        log2=one.log2,
        modality=one.modality,
        arrival=one.arrival,
    )


def _merged(loops: Sequence[LoopFindings], held: Lengths, threshold_ns: int) -> Totals:
    # One loop whose wall time is unknown makes the sum unknown too.
    wall_ns = sum(one.wall_ns for one in loops) if all(one.wall_ns for one in loops) else 0
    return Totals(
        loops=len(loops),
        wall_ns=wall_ns,
        iterations=held.iterations,
        stall_count=sum(one.stall_count for one in loops),
        stall_ns=sum(one.stall_ns for one in loops),
        percentiles=percentiles(held),
        log2=log2_rows(held.known),
        modality=find_modes(held.bins),
        arrival=felt(held, wall_ns, threshold_ns),
    )
