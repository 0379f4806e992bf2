"""The octave-window valley: does a histogram of iteration lengths have a gap that one mode alone cannot explain?

Null hypothesis: the density over log time rises once and falls once.  Then for any three windows left < valley < right
at least one side is no denser than the valley, so that its count r, given r + v iterations in side and valley
together, is at most binomial with q = side width / (side width + valley width).  A valley is proven when *both* sides
refuse that.  Nothing is fitted, so heavy tails, which are what iterations have, raise no alarm; and one stall in
ten thousand iterations suffices, which is what stalls are.

Tried and dropped, for false alarms or blindness on labelled histograms: Hartigan's dip, the bimodality coefficient,
Gaussian mixtures by BIC, Silverman's bandwidth test, Gregg's mvalue, and comparing single buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor, inf, lgamma, log, log1p, log2

DENSITY_RATIO = 2.0  # each side must be at least this much denser than the valley
TICKS_BLIND = 16  # below this many clock ticks a gap is the clock's, not the program's
EXACT_BELOW = 10_000  # up to here the binomial tail itself is bounded; above it Chernoff's bound is ample
FLAT = 1.3  # the emptiest stretch reaches as far as the density stays below this multiple of its lowest
# A bucket that begins at zero is as wide as iterations can be short.  Taken for one octave it looked dense, and a
# Weibull of shape 0.5 on log2 microseconds was called bimodal.
SHORTEST_NS = 50.0
STRETCHED = 0.5  # octaves by which a window may exceed its width: fine bins are a quarter wide, or a bit more
_SNAP = 1e-6  # octaves: borders this close are one border, in floating point

# Octaves.  A valley narrower than one proves nothing: timers and queue lumps make those.
_VALLEY_WIDTHS, _LOG2_VALLEY_WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0), (1.0, 2.0, 3.0, 4.0, 6.0)
_SIDE_WIDTHS, _LOG2_SIDE_WIDTHS = (0.75, 1.0, 2.0), (1.0, 2.0)

Window = tuple[int, int]  # two border indices
Side = tuple[int, float]  # iterations, octaves


@dataclass(frozen=True, slots=True)
class Grid:
    """A histogram rebinned to so many bins an octave.

    `x` are the borders (log2 ns), `below` the iterations under each, `edge` each border's index among the histogram's
    own edges, so that a split of the grid is a split of the histogram.  Both ends are padded with empty bins for
    side windows to hang over.  `valleys` and `sides` (one list a width) are the windows to try.
    """

    x: list[float]
    below: list[int]
    edge: list[int]
    valleys: list[Window]
    sides: list[list[Window]]


@dataclass(frozen=True, slots=True)
class Gap:
    """A valley, proven or not (`ln_p` says how well), with its emptiest stretch between two times in log2 ns.

    The iterations below border `border` of the grid, which is edge `edge` of the histogram, are the faster ones.
    """

    ln_p: float
    low: float
    high: float
    border: int
    edge: int


def ln_tail(r: int, n: int, q: float) -> float:
    """ln of an upper bound of P(Binomial(n, q) >= r).

    For large n Chernoff's bound (Hoeffding 1963, theorem 1); for small n the tail's first term times the geometric
    series that dominates its rest (Feller, vol. 1, VI.3), tighter by a factor of three to ten.
    """
    if r <= n * q:
        return 0.0
    if r == n:
        return n * log(q)
    miss = n - r
    if n > EXACT_BELOW:
        return -(r * log(r / n / q) + miss * log(miss / n / (1 - q)))
    first = lgamma(n + 1) - lgamma(r + 1) - lgamma(miss + 1) + r * log(q) + miss * log1p(-q)
    return min(0.0, first - log1p(-miss * q / ((r + 1) * (1 - q))))


def least_stalls(gap_octaves: float, p: float) -> int:
    """The fewest stalls, within one octave, that prove an empty gap of `gap_octaves` at level `p`."""
    return ceil(log(p) / log(1 / (1 + gap_octaves)))


def rebin(edges_ns: Sequence[float], below: Sequence[int], per_octave: int, tick_ns: float) -> Grid:
    """The grid of a histogram that holds at least one iteration; `below` are the iterations under each edge.

    Borders stay on the histogram's own edges and on whole clock ticks: a bin that could hold no tick would be an empty
    valley of the clock's making.
    """
    first, last = bisect_left(below, 1) - 1, bisect_left(below, below[-1])
    edges = edges_ns[first : last + 1]
    if tick_ns:
        edges = [ceil(edge / tick_ns - _SNAP) * tick_ns for edge in edges]
        edges[-1] = max(edges[-1], tick_ns)  # buckets finer than the clock hold what lasted less than a tick
    x, index = _borders(edges, per_octave)
    step, pad = 1 / per_octave, 2 * per_octave
    x = [x[0] - step * k for k in range(pad, 0, -1)] + x + [x[-1] + step * k for k in range(1, pad + 1)]
    edge = [first] * pad + [first + i for i in index] + [last] * pad
    valley_widths, side_widths = (
        (_LOG2_VALLEY_WIDTHS, _LOG2_SIDE_WIDTHS) if per_octave == 1 else (_VALLEY_WIDTHS, _SIDE_WIDTHS)
    )
    windows = {width: _windows(x, width) for width in {*valley_widths, *side_widths}}
    valleys = sorted({window for width in valley_widths for window in windows[width]})
    return Grid(x, [below[i] for i in edge], edge, valleys, _sides(x, {width: windows[width] for width in side_widths}))


def _borders(edges: Sequence[float], per_octave: int) -> tuple[list[float], list[int]]:
    """Borders (log2 ns) and their indices in `edges`: the first edge at or after each whole step of the grid."""
    lowest = edges[0] or min(SHORTEST_NS, next(edge for edge in edges if edge > 0) / 2)
    x, index, top = [log2(lowest)], [0], len(edges) - 1
    while index[-1] < top:
        step = (floor(x[-1] * per_octave + _SNAP) + 1) / per_octave
        at = min(top, bisect_left(edges, 2 ** (step - _SNAP), index[-1] + 1))
        x.append(max(log2(edges[at]), x[-1] + 2 * _SNAP))
        index.append(at)
    return x, index


def _windows(x: Sequence[float], width: float) -> list[Window]:
    """For each border the shortest window of at least `width` octaves that begins there."""
    windows, j, top = [], 0, len(x)
    for i, left in enumerate(x):
        reach = left + width - _SNAP
        while j < top and x[j] < reach:
            j += 1
        if j == top:
            break
        windows.append((i, j))
    return windows


def _sides(x: Sequence[float], by_width: Mapping[float, list[Window]]) -> list[list[Window]]:
    """The windows of each width, and in a list of their own those that a wide bucket stretches: of windows as wide as
    each other the fullest is the best, of others not."""
    sides, stretched = [], set[Window]()
    for width, windows in by_width.items():
        stretched.update((i, j) for i, j in windows if x[j] - x[i] > width + STRETCHED)
        sides.append([window for window in windows if window not in stretched])
    return [windows for windows in (*sides, sorted(stretched)) if windows]


def find_gaps(grid: Grid, lowest_ns: float, proven_p: float, suspected_p: float) -> list[Gap]:
    """The valleys of a histogram, fastest first: those proven at level `proven_p`, and within the parts that they
    leave the best that reaches `suspected_p`.  Only valleys that begin at `lowest_ns` or later count."""
    gaps: list[Gap] = []
    parts = [(0, len(grid.x) - 1)]
    while parts:
        first, last = parts.pop()
        gap = _best_gap(grid, first, last, log2(lowest_ns) - _SNAP if lowest_ns > 0 else -inf)
        if gap and gap.ln_p <= log(suspected_p):
            gaps.append(gap)
            if gap.ln_p <= log(proven_p):
                parts += [(first, gap.border), (gap.border, last)]
    return sorted(gaps, key=lambda gap: gap.border)


def _best_gap(grid: Grid, first: int, last: int, lowest: float) -> Gap | None:
    """The best valley among the iterations between borders `first` and `last`; None where there is no candidate."""
    x, fewest, most = grid.x, grid.below[first], grid.below[last]
    below = [min(max(count, fewest), most) - fewest for count in grid.below]
    left, right = _densest(x, below, grid.sides, leftward=True), _densest(x, below, grid.sides, leftward=False)
    best, where = 0.0, None
    for i, j in grid.valleys:
        if x[i] < lowest or not below[i] or below[j] == below[-1]:
            continue
        count, width = below[j] - below[i], x[j] - x[i]
        ln_p = _ln_p(right[j], count, width)
        if ln_p < best:  # the fast side rarely fails: look at it last
            ln_p = max(ln_p, _ln_p(left[i], count, width))
        if ln_p < best:
            best, where = ln_p, (i, j)
    if where is None:
        return None
    low, high, border = _emptiest(x, below, where, lowest)
    return Gap(best, x[low], x[high], border, grid.edge[border])


def _densest(
    x: Sequence[float], below: Sequence[int], sides: Sequence[Sequence[Window]], *, leftward: bool
) -> list[tuple[Side, ...]]:
    """For each border the fullest window of each width that lies wholly left (or right) of it."""
    columns = []
    step = 1 if leftward else -1
    for windows in sides:
        fullest: list[Side] = [(0, 1.0)] * len(x)
        for i, j in windows:
            at = j if leftward else i
            fullest[at] = max(fullest[at], (below[j] - below[i], x[j] - x[i]))
        columns.append([*accumulate(fullest[::step], max)][::step])
    return [*zip(*columns, strict=True)]


def _ln_p(sides: Sequence[Side], count: int, width: float) -> float:
    """How surely the best of `sides` is denser than a valley of `count` iterations and `width` octaves."""
    dense = [side for side in sides if side[0] * width >= DENSITY_RATIO * count * side[1]]
    return min((ln_tail(r, r + count, octaves / (octaves + width)) for r, octaves in dense), default=0.0)


def _emptiest(x: Sequence[float], below: Sequence[int], valley: Window, lowest: float) -> tuple[int, int, int]:
    """The borders of a valley's emptiest stretch, and the one nearest its middle: from the lowest bin on as far as the
    density stays about as low, but not under `lowest`; the longest such stretch where several bins are as empty."""
    density = [(below[k + 1] - below[k]) / (x[k + 1] - x[k]) for k in range(len(x) - 1)]
    smooth = {k: density[k - 1] + 2 * density[k] + density[k + 1] for k in range(*valley)}
    least = min(smooth.values())
    start = bisect_left(x, lowest)
    stretches = {_stretch(density, below, k, start) for k, value in smooth.items() if value == least}
    low, high = max(stretches, key=lambda stretch: (x[stretch[1]] - x[stretch[0]], stretch))
    middle = (x[low] + x[high]) / 2
    return low, high, min(range(low, high + 1), key=lambda k: (abs(x[k] - middle), -k))


def _stretch(density: Sequence[float], below: Sequence[int], k: int, start: int) -> Window:
    """The bins around bin `k` of about its density, none before `start`, with iterations left on both sides."""
    low, high, cap = k, k + 1, density[k] * FLAT
    while low > start and density[low - 1] <= cap and below[low - 1] > 0:
        low -= 1
    while density[high] <= cap and below[high + 1] < below[-1]:
        high += 1
    return low, high
