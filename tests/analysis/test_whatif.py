"""What-if: what is left of a recording without some of its time."""

from __future__ import annotations

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Prediction, Removal
from stallscope.errors import UnreadableInput
from stallscope.recording.nouns import CoarseHistogram, Frame, GcPause, Handler, HandlerTime, Recording, Span, Stall
from tests.analysis.recordings import FUTEX, LOOP_FRAMES, MS, SERVER, S, blocked, loop, path, recording, stack

READS = [blocked(50 * MS, path("read", "/a"), stack(20), k * 100 * MS) for k in range(200)]
WRITES = [blocked(20 * MS, path("write", "/b"), stack(30), 30 * S + k * 100 * MS) for k in range(100)]


def predicted(made: Recording, *culprits: int, causes: tuple[str, ...] = ()) -> Prediction:
    foretold = examine(made, what_if=Removal(culprits, causes)).prediction  # type: ignore[arg-type]
    assert foretold is not None
    return foretold


def test_without_one_culprit_the_other_is_left() -> None:
    foretold = predicted(recording(READS + WRITES), 1)
    left = foretold.totals
    assert (foretold.removed_ns, left.stall_count, left.stall_ns) == (10 * S, 100, 2 * S)
    assert left.iterations == 10_300
    assert left.stall_wall_share == pytest.approx(2 / 60)
    assert foretold.share_if_clients_wait == pytest.approx(2 / 50)
    assert foretold.share_expected is not None
    assert 2 / 60 <= foretold.share_expected <= 2 / 50
    assert left.arrival is not None
    assert left.arrival.mean_wait_ms == pytest.approx(100 * 20**2 / (2 * 60_000), rel=0.01)


def test_without_both_the_stall_mode_is_gone() -> None:
    before = examine(recording(READS + WRITES))
    left = predicted(recording(READS + WRITES), 1, 2).totals
    assert before.totals.modality.shape == "multimodal"
    assert (left.modality.shape, left.stall_count) == ("unimodal", 0)
    assert left.percentiles is not None
    assert left.percentiles.p99_ns < MS
    assert sum(row.count for row in left.log2) == 10_300


def test_a_cause_takes_all_its_culprits_and_no_other() -> None:
    collected = [Stall(1, 50 * S + k * S, 30 * MS, pauses=(GcPause(50 * S + k * S, 30 * MS, 2),)) for k in range(5)]
    assert predicted(recording(READS + collected), causes=("gc",)).removed_ns == 150 * MS
    assert predicted(recording(READS + collected), causes=("blocking-syscall",)).removed_ns == 10 * S
    assert predicted(recording(READS + collected), 1, causes=("blocking-syscall",)).removed_ns == 10 * S


def test_of_a_pile_up_a_cause_takes_its_own_part() -> None:
    handlers = tuple(HandlerTime(Handler(f"task{k}", SERVER, k), 4, 10 * MS) for k in range(5))
    spans = tuple(
        Span(k * 10 * MS, (k + 1) * 10 * MS, 2, (Frame(SERVER, k, f"task{k}"), *LOOP_FRAMES), FUTEX, "S", 10 * MS, 0, 1)
        for k in range(5)
    )
    pauses = (GcPause(0, 4 * MS, 2),)
    crowded = recording([Stall(1, 0, 50 * MS, handlers=handlers, spans=spans, pauses=pauses)])
    assert [one.kind for one in examine(crowded).culprits] == ["pile-up"]
    assert predicted(crowded, causes=("gc",)).removed_ns == 4 * MS


def test_part_of_a_stall_leaves_the_rest_of_it() -> None:
    spans = (
        Span(0, 30 * MS, 9, stack(20), path("read", "/a"), "S", 0, 0, 0),
        Span(30 * MS, 50 * MS, 9, stack(30, "log"), path("write", "/b"), "S", 0, 0, 0),
    )
    left = predicted(recording([Stall(1, 0, 50 * MS, spans=spans)]), 1).totals
    assert (left.stall_count, left.stall_ns) == (1, 20 * MS)


def test_a_coarse_histogram_is_replayed_in_its_own_buckets() -> None:
    coarse = CoarseHistogram(tuple(k * MS for k in (0, 2, 4, 8, 16, 32, 64, 128)), (3799, 0, 0, 0, 0, 200, 0))
    base = loop([])
    made = recording(READS, [type(base)(1, 1, 1, 1, "epoll", "", 0, 60 * S, {}, None, coarse)])
    left = predicted(made, 1)
    assert left.totals.iterations == 3999
    assert left.totals.stall_count == 0


@pytest.mark.parametrize(
    ("removal", "said"),
    [
        (Removal((3,)), "no culprit 3"),
        (Removal((0,)), "no culprit 0"),
        (Removal(causes=("gc",)), "no stall of the recording has the cause gc: it has blocking-syscall"),
    ],
)
def test_what_is_not_there_cannot_be_taken_away(removal: Removal, said: str) -> None:
    with pytest.raises(UnreadableInput, match=said):
        examine(recording(READS + WRITES), what_if=removal)
    with pytest.raises(UnreadableInput, match="nothing stalled"):
        examine(recording(()), what_if=removal)
