"""Two recordings side by side: what is matched, what is called gone or new, and what is said to be chance."""

from __future__ import annotations

import pytest

from stallscope.analysis.compare import Comparison, compare
from stallscope.analysis.findings import Removal
from stallscope.recording.nouns import CoarseHistogram, Fidelity, Frame, Recording, Stall
from tests.analysis.recordings import MS, S, blocked, loop, path, recording, stack


def reads(number: int, ms: int = 50, line: int = 20) -> list[Stall]:
    return [blocked(ms * MS, path("read", "/a"), stack(line), k * 200 * MS) for k in range(number)]


def writes(number: int) -> list[Stall]:
    return [blocked(20 * MS, path("write", "/b"), stack(30), 30 * S + k * 100 * MS) for k in range(number)]


def changes(found: Comparison) -> list[tuple[str, str | None]]:
    told: list[tuple[str, str | None]] = []
    for one in found.culprits:
        side = one.before or one.after
        assert side is not None
        told.append((one.change, side.culprit.syscall))
    return told


def test_gone_new_grown_and_shrunk() -> None:
    opens = [blocked(30 * MS, path("openat", "/c"), stack(40), 45 * S + k * 100 * MS) for k in range(60)]
    before, after = recording(reads(100) + writes(100)), recording(reads(30) + opens)
    assert changes(compare(before, after)) == [("gone", "write"), ("new", "openat"), ("shrunk", "read")]
    assert changes(compare(after, before)) == [("gone", "openat"), ("new", "write"), ("grown", "read")]


def test_a_line_that_drifted_is_the_same_culprit_and_so_is_one_in_a_moved_folder() -> None:
    moved = [
        one._replace(
            spans=tuple(span._replace(stack=(Frame("/opt/v2/server.py", 31, "Server.handle"),)) for span in one.spans),
        )
        for one in reads(100)
    ]
    assert changes(compare(recording(reads(100)), recording(reads(100, line=25)))) == [("same", "read")]
    assert changes(compare(recording(reads(100)), recording(moved))) == [("same", "read")]


def test_two_lines_of_one_function_are_taken_together() -> None:
    found = compare(recording(reads(100) + reads(100, line=21)), recording(reads(100)))
    assert changes(found) == [("shrunk", "read")]
    assert found.culprits[0].before is not None
    assert found.culprits[0].before.ns == 10 * S


def test_a_longer_recording_is_compared_by_its_rate() -> None:
    fast = [50_000] * 20_000
    twice = recording(reads(200), [loop(fast + [50 * MS] * 200, wall_ns=120 * S)], ended_ns=120 * S)
    assert changes(compare(recording(reads(100)), twice)) == [("same", "read")]


def test_few_stalls_may_be_chance() -> None:
    gone = compare(recording(reads(2)), recording(()))
    assert [(one.change, one.certain) for one in gone.culprits] == [("gone", False)]
    many = compare(recording(reads(20)), recording(()))
    assert [(one.change, one.certain) for one in many.culprits] == [("gone", True)]
    assert changes(compare(recording(reads(2)), recording(reads(3)))) == [("same", "read")]


def test_a_culprit_too_small_for_a_row_is_not_gone() -> None:
    long = blocked(20 * S, path("write", "/b"), stack(30), 30 * S)
    found = compare(recording(reads(100)), recording([*reads(1, ms=40), long]))
    assert ("shrunk", "read") in changes(found)
    assert "gone" not in dict(changes(found))


def test_modes_gone_and_new() -> None:
    found = compare(recording(reads(100)), recording(()))
    assert [one.change for one in found.modes] == ["same", "gone"]
    back = compare(recording(()), recording(reads(100)))
    assert [(one.change, one.after is not None and one.after.stall_mode) for one in back.modes] == [
        ("same", False),
        ("new", True),
    ]


def test_causes_are_shares_of_wall_time() -> None:
    (cause,) = compare(recording(reads(100)), recording(reads(50))).causes
    assert cause.cause == "blocking-syscall"
    assert cause.before_wall_share == pytest.approx(5 / 60)
    assert cause.after_wall_share == pytest.approx(2.5 / 60)


def test_a_what_if_is_scored() -> None:
    before = recording(reads(100) + writes(100))
    right = compare(before, recording(writes(100)), Removal((1,))).score
    assert right is not None
    assert right.low_share == right.measured_share == pytest.approx(2 / 60)
    assert right.right
    assert 0 <= right.error <= 60 / 55 - 1
    wrong = compare(before, recording(reads(100) + writes(100)), Removal((1,))).score
    assert wrong is not None
    assert not wrong.right
    assert compare(before, before).score is None


def test_equal_recordings_are_said_to_be_equal() -> None:
    same = recording(reads(10))
    assert compare(same, same._replace(path="y.stall")).equal
    assert not compare(same, recording(reads(11))).equal


def test_both_are_judged_by_the_higher_threshold_and_that_is_said() -> None:
    lower = recording(reads(10) + reads(5, ms=15, line=22))
    higher = recording(reads(10))._replace(threshold_ns=30 * MS)
    found = compare(lower, higher)
    assert (found.before.threshold_ns, found.before.totals.stall_count) == (30 * MS, 10)
    assert changes(found) == [("same", "read")]
    assert any("different thresholds (10 ms and 30 ms)" in note for note in found.notes)


def test_a_recording_without_details_is_compared_by_its_histogram_alone() -> None:
    coarse = CoarseHistogram(tuple(k * MS for k in (0, 2, 4, 8, 16, 32, 64, 128)), (3799, 0, 0, 0, 409, 313, 128))
    foreign: Recording = recording(
        (), [loop([], wall_ns=0)._replace(coarse=coarse)], fidelity=Fidelity("funclatency"), source="funclatency"
    )
    found = compare(foreign, recording(reads(10)))
    assert (found.culprits, found.causes, found.score) == ((), (), None)
    assert len(found.notes) == 3
    assert [one.change for one in found.modes].count("same") <= 1


def test_several_loops_are_taken_as_one() -> None:
    stalls = [*reads(50), *(one._replace(loop_id=2) for one in reads(50))]
    loops = [loop([50_000] * 5000 + [50 * MS] * 50, loop_id=number) for number in (1, 2)]
    found = compare(recording(stalls, loops), recording((), [loop([50_000] * 5000)]))
    assert (found.before.totals.loops, found.before.totals.iterations, found.before.totals.wall_ns) == (
        2,
        10_100,
        120 * S,
    )
    assert found.before.totals.stall_wall_share == pytest.approx(5 / 120)
    assert found.before.totals.modality.shape == "bimodal"


def test_nothing_against_nothing() -> None:
    empty = recording((), ())
    assert compare(empty, empty).equal
    assert compare(empty, recording(reads(10))).modes
