"""Comparisons and predictions for people and programs."""

from __future__ import annotations

import json
import re

import pytest

from stallscope.analysis.compare import compare
from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Removal
from stallscope.recording.nouns import Recording
from stallscope.report import compare_json, compare_terminal, prediction
from tests.analysis.recordings import MS, S, blocked, loop, path, recording, stack

READS = [
    blocked(50 * MS, path("read", f"/srv/some/where/deep/down/in/an/archive/{k}.bin"), stack(20), k * 100 * MS)
    for k in range(100)
]
WRITES = [blocked(20 * MS, path("write", "/log"), stack(30, "log"), 30 * S + k * 100 * MS) for k in range(100)]
RECORDINGS = {
    "both": recording(READS + WRITES),
    "writes": recording(WRITES),
    "healthy": recording(()),
    "empty": recording((), ()),
    "unwatched": recording((), [loop([MS] * 100, wall_ns=0)]),
}


@pytest.mark.parametrize("before", RECORDINGS)
@pytest.mark.parametrize("after", RECORDINGS)
def test_any_two_recordings_can_be_compared_in_80_columns(before: str, after: str) -> None:
    found = compare(RECORDINGS[before], RECORDINGS[after])
    text = compare_terminal.render(found)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert len(text.splitlines()) <= 50
    assert "\x1b" not in text
    assert json.loads(compare_json.render(found))["equal"] is (before == after)
    assert ("hold the same" in text) is (before == after)


def test_what_went_and_what_stayed_is_told_with_the_score() -> None:
    text = compare_terminal.render(compare(RECORDINGS["both"], RECORDINGS["writes"], Removal((1,))))
    rows = [line for line in text.splitlines() if line.startswith(("gone", "same"))]
    assert [row.split()[0] for row in rows] == ["gone", "same"]
    assert "read(archive/*.bin)" in rows[0]
    assert "app/server.py:30 in log" in text
    assert "The what-if without culprit 1 was right" in text
    assert "measured 3.3 %" in " ".join(text.split())


def test_json_scores_the_prediction() -> None:
    found = json.loads(compare_json.render(compare(RECORDINGS["both"], RECORDINGS["writes"], Removal((1,)))))
    assert found["schema"] == 1
    assert found["score"]["right"] is True
    assert found["score"]["measured_stall_wall_share"] == pytest.approx(2 / 60, abs=1e-6)
    assert found["what_if"]["culprits"] == [1]
    assert [one["change"] for one in found["culprits"]] == ["gone", "same"]
    assert found["culprits"][0]["after"] is None


def told(made: Recording, removal: Removal) -> str:
    return prediction.render(examine(made, what_if=removal))


def test_a_prediction_shows_what_is_left() -> None:
    text = told(RECORDINGS["both"], Removal((1,), ("blocking-syscall",)))
    assert "without culprit 1 and cause blocking-syscall" in text
    assert "#1 read(archive/*.bin) in handle, 5 s in 100 stalls" in text.replace("Server.handle", "handle")
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "predicted: unimodal" in text
    assert "expect stalls" not in text
    some = " ".join(told(RECORDINGS["both"], Removal((1,))).split())
    assert re.search(r"expect stalls of 3\.[3-6] % of wall time, and of 3\.6 % at most", some)


def test_without_a_what_if_there_is_no_prediction() -> None:
    with pytest.raises(ValueError, match="without a what-if"):
        prediction.render(examine(RECORDINGS["both"]))
