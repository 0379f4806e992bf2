"""Culprits and victims: whose calls waited behind whose stalls."""

from __future__ import annotations

import pytest

from stallscope.agent.layout import bucket_of
from stallscope.analysis.examine import examine
from stallscope.analysis.findings import HandlerDelay
from stallscope.recording.nouns import Handler, HandlerCounts, HandlerTime, Recording
from tests.analysis.recordings import HANDLER, MS, SERVER, S, blocked, loop, path, recording, stack

VICTIM = Handler("Server.meta", SERVER, 60)
FAST = bucket_of(50_000)
COUNTS = (HandlerCounts(1, HANDLER, {FAST: 500}), HandlerCounts(1, VICTIM, {FAST: 3000}))
STALLS = [blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(100)]


def delays(made: Recording) -> dict[Handler, HandlerDelay]:
    return {one.handler: one for one in examine(made).delays}


def test_the_culprit_inflicts_and_the_others_suffer() -> None:
    found = delays(recording(STALLS, handlers=COUNTS))
    each_ns = 100 * (50 * MS) ** 2 / (2 * 60 * S)
    assert found[HANDLER].own_ns == 5 * S
    assert found[HANDLER].inflicted_ns == pytest.approx(3000 * each_ns)
    assert found[HANDLER].suffered_ns == 0
    assert found[VICTIM].suffered_ns == found[HANDLER].inflicted_ns
    assert (found[VICTIM].own_ns, found[VICTIM].inflicted_ns, found[VICTIM].calls) == (0, 0, 3000)
    assert list(found) == [HANDLER, VICTIM]


def test_calls_seen_in_the_same_iteration_are_counted() -> None:
    times = (HandlerTime(HANDLER, 1, 45 * MS), HandlerTime(VICTIM, 7, MS))
    found = delays(recording([one._replace(handlers=times) for one in STALLS], handlers=COUNTS))
    assert (found[VICTIM].caught_calls, found[HANDLER].caught_calls) == (700, 0)
    assert found[VICTIM].own_ns == 100 * MS


def test_what_cannot_be_known_is_none() -> None:
    without_counts = delays(recording(STALLS))
    assert without_counts[HANDLER].calls is None
    assert without_counts[HANDLER].inflicted_ns is None
    two_loops = [loop([50_000] * 1000 + [50 * MS] * 100), loop([50_000] * 1000, loop_id=2)]
    assert delays(recording(STALLS, two_loops, handlers=COUNTS))[HANDLER].inflicted_ns is None
    assert examine(recording(())).delays == ()
