"""Node's `perf_hooks` histogram as JSON: `JSON.stringify(monitorEventLoopDelay())`.

The histogram holds percentiles only, so the counts between two of them are rounded to whole samples.  Its samples are
the times between the ticks of a timer, hence the timer's own period is taken off: the median sample, which is quiet
unless the loop stalls in every second tick (the shortest was tried: the tick after enable() comes at any time).
Form: `Histogram.toJSON` in Node's lib/internal/histogram.js; values in ns.
"""

from __future__ import annotations

import json
from typing import Any

from stallscope.errors import UnreadableInput
from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_CALLS, NO_HANDLERS, NO_STALLS, NO_WALL, loop_of, ms, process_of, recording_of
from stallscope.recording.nouns import CoarseHistogram, Loop, Missing, Recording

KEYS = ('"percentiles"', '"exceeds"', '"stddev"')
DELAYS = Missing("iterations", "Node samples the loop's delay by a timer: a short stall between two ticks is not seen")


def recognises(head: str) -> bool:
    return head.lstrip()[:1] in "{[" and all(key in head for key in KEYS)


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop with a coarse histogram, for each histogram in the file."""
    histograms = _load(source)
    loops = [_loop(number, histogram) for number, histogram in enumerate(histograms, 1)]
    periods = ", ".join(ms(histogram["percentiles"]["50"]) for histogram in histograms)
    return recording_of(
        source,
        "node-histogram",
        threshold_ns,
        loops=loops,
        processes=[process_of(loop.id, 0, "node") for loop in loops],
        missing=[NO_STALLS, NO_CALLS, NO_HANDLERS, NO_WALL, DELAYS],
        notes=[f"delays are what a sample took beyond the median one ({periods}), which is the timer's own period"],
    )


def _load(source: Source) -> list[dict[str, Any]]:
    try:
        content = json.loads(source.whole())
        histograms = content if isinstance(content, list) else [content]
        for histogram in histograms:
            _check(histogram)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UnreadableInput(
            f"{source.name} is not a whole histogram of Node: write it with JSON.stringify(histogram) after disable()."
        ) from None
    return histograms


def _check(histogram: dict[str, Any]) -> None:
    """Raises ValueError unless counts and percentiles are numbers that ascend."""
    values = [value for _, value in sorted((float(key), value) for key, value in histogram["percentiles"].items())]
    numbers = [histogram["count"], histogram["percentiles"]["50"], *values]
    if any(type(number) is not int or number < 0 for number in numbers) or values != sorted(values):
        raise ValueError(histogram)
    if any(not 0 <= float(key) <= 100 for key in histogram["percentiles"]):
        raise ValueError(histogram)


def _loop(number: int, histogram: dict[str, Any]) -> Loop:
    count, period_ns = histogram["count"], histogram["percentiles"]["50"]
    edges, counts = [0], [0]
    reached = 0
    for percentile, value in sorted((float(key), value) for key, value in histogram["percentiles"].items()):
        below = round(count * percentile / 100)
        edge = max(value - period_ns, 0) + 1  # the samples up to and with this value
        if edge > edges[-1]:
            edges.append(edge)
            counts.append(0)
        counts[-1] += below - reached
        reached = below
    loop = loop_of(number, 0, "node", "event loop delay")
    coarse = CoarseHistogram(tuple(edges), tuple(counts[1:]), 0, 1)
    return Loop(number, number, 0, 0, loop.kind, loop.name, 0, 0, {}, None, coarse)
