"""What-if: the recorded stalls replayed without a culprit's time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stallscope.analysis.findings import WhatIf
from stallscope.analysis.lengths import Lengths, percentile_histogram


class Replay:
    """The loops that stalled, ready to be asked what they were without a culprit."""

    def __init__(self, loops: Iterable[Lengths], wall_ns: int, threshold_ns: int, durations_ns: Sequence[int]) -> None:
        """`durations_ns` are the stalls that culprits are blamed for, by index."""
        held = list(loops)
        self._histogram = percentile_histogram(pair for one in held for pair in one.known)
        self._stall_ns = sum(one.at_least(threshold_ns)[1] for one in held)
        self._durations_ns = durations_ns
        self._wall_ns = wall_ns
        self._threshold_ns = threshold_ns

    def without(self, blamed_ns: Mapping[int, int]) -> WhatIf:
        """What would be left, had those ns of those stalls not passed."""
        changes = [(self._durations_ns[index], self._durations_ns[index] - ns) for index, ns in blamed_ns.items()]
        gone_ns = sum(old - (new if new >= self._threshold_ns else 0) for old, new in changes)
        self._move(changes)
        p99_ns = int(self._histogram.get_percentile_to_value_dict([99.0])[99.0])
        self._move((new, old) for old, new in changes)
        left_ns = max(0, self._stall_ns - gone_ns)
        return WhatIf(p99_ns, min(1.0, left_ns / self._wall_ns) if self._wall_ns > 0 else None)

    def _move(self, changes: Iterable[tuple[int, int]]) -> None:
        for old, new in changes:
            self._histogram.record_value(max(1, old), -1)
            self._histogram.record_value(max(1, new), 1)
