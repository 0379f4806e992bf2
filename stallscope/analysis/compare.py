"""Two recordings side by side: what went away, what came, what grew, and whether that was foretold.

Recordings differ in length, so stall time is compared per second of wall time.  A difference counts only where it is
larger than the chance of so few stalls allows: the stall time of a culprit whose n stalls come independently has a
variance of about the sum of their squares, which is at most its time multiplied by its longest stall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log2, sqrt
from typing import Literal

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Culprit, Findings, Removal
from stallscope.analysis.ledger import CAUSES, Cause
from stallscope.analysis.modes import Mode
from stallscope.analysis.sites import bare
from stallscope.recording.nouns import Recording

GREW = 1.25  # a change of less than a quarter is called the same
ERRORS = 2.0  # standard errors that a difference must exceed
RULE_OF_THREE = 3.0  # so many stalls expected and none seen: a chance of 5 %
SAME_MODE_OCTAVES = 1.0
CLOSE = 0.25  # a prediction within a quarter of what was measured counts as right

Change = Literal["gone", "new", "grown", "shrunk", "same"]
_ORDER: tuple[Change, ...] = ("gone", "new", "grown", "shrunk", "same")


@dataclass(frozen=True, slots=True)
class Side:
    """A culprit in one of the recordings: its lines of one function taken together."""

    culprit: Culprit
    """The heaviest of them."""
    ns: int
    stalls: int
    wall_share: float | None
    """Of the recording's wall time; None where that is unknown."""


@dataclass(frozen=True, slots=True)
class CulpritChange:
    """A culprit before and after; None on the side that has not got it."""

    change: Change
    before: Side | None
    after: Side | None
    certain: bool
    """False: so few stalls that chance alone may have made the difference."""


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A mode before and after: `same` where its place stayed within an octave."""

    change: Literal["gone", "new", "same"]
    before: Mode | None
    after: Mode | None


@dataclass(frozen=True, slots=True)
class CauseChange:
    """A cause's part of the wall time, in ns per second of it; None where wall time is unknown."""

    cause: Cause
    before_ns: int
    after_ns: int
    before_wall_share: float | None
    after_wall_share: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """What a what-if made from the first recording foretold, and what the second one shows."""

    predicted_share: float
    low_share: float
    high_share: float
    """The prediction's two ends: requests come as they did, or clients fill the time that is gained."""
    measured_share: float
    error: float
    """(predicted - measured) / measured, of stall time per wall time; 0 where both are 0."""
    right: bool
    """Within a quarter of what was measured, or between the two ends."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two recordings, judged by one threshold."""

    before: Findings
    after: Findings
    equal: bool
    """Both hold the same."""
    modes: tuple[ModeChange, ...]
    culprits: tuple[CulpritChange, ...]
    """Gone, new, grown, shrunk, the same; heaviest first in each."""
    causes: tuple[CauseChange, ...]
    score: Score | None
    notes: tuple[str, ...]
    """Sentences about what could not be compared like with like."""


def compare(before: Recording, after: Recording, what_if: Removal | None = None) -> Comparison:
    """What changed from one recording to another, and whether `what_if`, made from the first, foretold it.

    Both are judged by the higher of their thresholds.  Raises UnreadableInput as `examine` does.
    """
    threshold_ns = max(before.threshold_ns, after.threshold_ns)
    old, new = examine(before, threshold_ns, what_if), examine(after, threshold_ns)
    detailed = all(one.stalls or not one.totals.stall_count for one in (old, new))
    return Comparison(
        before=old,
        after=new,
        equal=before._replace(path="") == after._replace(path=""),
        modes=_modes(old.totals.modality.modes, new.totals.modality.modes),
        culprits=_culprits(old, new) if detailed else (),
        causes=_causes(old, new) if detailed else (),
        score=_score(old, new),
        notes=tuple(_notes(old, new, detailed)),
    )


def _modes(before: Sequence[Mode], after: Sequence[Mode]) -> tuple[ModeChange, ...]:
    """The modes paired by where they sit, the nearest first; fastest first."""
    pairs = sorted(
        (abs(log2(max(1.0, old.peak_ns) / max(1.0, new.peak_ns))), i, j)
        for i, old in enumerate(before)
        for j, new in enumerate(after)
    )
    partner: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance <= SAME_MODE_OCTAVES and i not in partner and j not in partner.values():
            partner[i] = j
    found = [
        ModeChange("same", old, after[partner[i]]) if i in partner else ModeChange("gone", old, None)
        for i, old in enumerate(before)
    ]
    found += [ModeChange("new", None, new) for j, new in enumerate(after) if j not in partner.values()]
    return tuple(sorted(found, key=_peak_ns))


def _peak_ns(one: ModeChange) -> float:
    mode = one.before or one.after
    return mode.peak_ns if mode else 0.0


def _culprits(before: Findings, after: Findings) -> tuple[CulpritChange, ...]:
    """The culprits of both, matched by file first, then by the file's name alone: a release may move its folder."""
    old, new = _sides(before), _sides(after)
    pairs = _matched(old, new, _key)
    found = [_change(a, b, before, after) for a, b in [*pairs, *_matched(old, new, _loose_key)]]
    found += [_change(one, None, before, after) for one in old] + [_change(None, one, before, after) for one in new]
    return tuple(sorted(found, key=lambda one: (_ORDER.index(one.change), -_weight_ns(one))))


def _weight_ns(one: CulpritChange) -> int:
    return max(side.ns for side in (one.before, one.after) if side)


def _matched(old: list[Side], new: list[Side], key: Callable[[Culprit], object]) -> list[tuple[Side, Side]]:
    """Takes the sides of equal key out of both lists, as pairs."""
    by_key = {key(side.culprit): side for side in new}
    pairs = []
    for side in list(old):
        other = by_key.pop(key(side.culprit), None)
        if other is not None:
            pairs.append((side, other))
            old.remove(side)
            new.remove(other)
    return pairs


def _sides(found: Findings) -> list[Side]:
    groups: dict[object, list[Culprit]] = {}
    for one in (*found.culprits, *(found.others.members if found.others else ())):
        if one.kind != "saturation":
            groups.setdefault(_key(one), []).append(one)
    return [_side(several, found.totals.wall_ns) for several in groups.values()]


def _side(several: Sequence[Culprit], wall_ns: int) -> Side:
    ns = sum(one.ns for one in several)
    return Side(several[0], ns, sum(one.stalls for one in several), ns / wall_ns if wall_ns else None)


def _key(one: Culprit) -> tuple[object, ...]:
    """What makes a culprit the same in another recording: never its line, which drifts."""
    where = one.location
    return (*_loose_key(one), where.file if where else "")


def _loose_key(one: Culprit) -> tuple[object, ...]:
    where = one.location
    return (
        one.kind,
        one.cause if one.kind == "site" else "",
        one.syscall,
        bare(one.handler.name) if one.handler else "",
        where.function if where else "",
        where.file.rpartition("/")[2] if where else "",
    )


def _change(old: Side | None, new: Side | None, before: Findings, after: Findings) -> CulpritChange:
    walls = (before.totals.wall_ns or before.wall_ns, after.totals.wall_ns or after.wall_ns)
    if old is None or new is None:
        own, other = walls if old else (walls[1], walls[0])
        stalls = sum(side.stalls for side in (old, new) if side)
        expected = stalls / own * other if own else 0.0
        return CulpritChange("gone" if old else "new", old, new, expected >= RULE_OF_THREE)
    if not all(walls):
        return CulpritChange("same", old, new, False)
    rates = old.ns / walls[0], new.ns / walls[1]
    errors = sqrt(_variance(old) / walls[0] ** 2 + _variance(new) / walls[1] ** 2)
    certain = abs(rates[1] - rates[0]) > ERRORS * errors
    if certain and max(rates) >= GREW * min(rates):
        return CulpritChange("grown" if rates[1] > rates[0] else "shrunk", old, new, True)
    return CulpritChange("same", old, new, True)


def _variance(side: Side) -> float:
    """An upper bound of the variance of its time, in ns²."""
    return float(side.ns) * side.culprit.longest_ns


def _causes(before: Findings, after: Findings) -> tuple[CauseChange, ...]:
    old, new = ({one.cause: one.ns for one in found.causes} for found in (before, after))
    found = [
        CauseChange(
            cause,
            old.get(cause, 0),
            new.get(cause, 0),
            _per_wall(old.get(cause, 0), before),
            _per_wall(new.get(cause, 0), after),
        )
        for cause in CAUSES
        if cause in old or cause in new
    ]
    return tuple(sorted(found, key=lambda one: -max(one.before_ns, one.after_ns)))


def _per_wall(ns: int, found: Findings) -> float | None:
    return ns / found.totals.wall_ns if found.totals.wall_ns else None


def _score(before: Findings, after: Findings) -> Score | None:
    """None without a what-if, or where a wall time is unknown."""
    foretold = before.prediction
    measured = after.totals.stall_wall_share
    if foretold is None or foretold.share_expected is None or measured is None:
        return None
    low, high = foretold.totals.stall_wall_share or 0.0, foretold.share_if_clients_wait or 0.0
    expected = foretold.share_expected
    error = (expected - measured) / measured if measured else float(expected > 0)
    return Score(expected, low, high, measured, error, abs(error) <= CLOSE or low <= measured <= high)


def _notes(before: Findings, after: Findings, detailed: bool) -> Iterable[str]:
    old, new = before.recording, after.recording
    if old.threshold_ns != new.threshold_ns:
        yield (
            f"the recordings have different thresholds ({old.threshold_ns / 1e6:g} ms and {new.threshold_ns / 1e6:g} "
            f"ms); both are judged by {before.threshold_ns / 1e6:g} ms"
        )
    if old.fidelity.level != new.fidelity.level:
        yield (
            f"the recordings were made in different ways ({old.fidelity.level} and {new.fidelity.level}): what one of "
            "them could not see may look gone or new; histograms and stall time compare, causes and calls may not"
        )
    if not detailed:
        yield "culprits and causes are not compared: a recording counts stalls without details of them"
    if not (before.totals.wall_ns and after.totals.wall_ns):
        yield "shares of wall time are not compared: how long a loop was watched is not known"
    for name, found in (("first", before), ("second", after)):
        if found.recording.suppressed:
            yield f"{found.recording.suppressed:,} stalls of the {name} recording are counted without details"
        if len(found.loops) > 1 and found.totals.loops == 1 and sum(bool(one.iterations) for one in found.loops) > 1:
            yield f"the {name} recording's loops have buckets that do not merge: its loop with most stalls stands alone"
