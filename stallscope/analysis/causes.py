"""The ledger of the whole recording: what each cause took of all stalls together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stallscope.analysis.findings import CauseTime
from stallscope.analysis.ledger import Cause, Slice, ledger


def causes(divided: Sequence[Sequence[Slice]]) -> tuple[CauseTime, ...]:
    """Every cause that took any time, heaviest first; `divided` are the parts of each stall."""
    sums: Counter[Cause] = Counter()
    stalls: Counter[Cause] = Counter()
    for parts in divided:
        found = ledger(parts)
        sums.update(found)
        stalls.update(found.keys())
    total_ns = sum(sums.values())
    return tuple(CauseTime(cause, ns, ns / total_ns, stalls[cause]) for cause, ns in sums.most_common())
