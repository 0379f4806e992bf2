"""The JSON report against its contract, written down key by key."""

from __future__ import annotations

import json
from types import NoneType
from typing import Any

import pytest

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Removal
from stallscope.recording.nouns import Executor, Fidelity, GcPause, Missing, Recording, Stall
from stallscope.report.json_report import as_dict, render
from tests.analysis.recordings import MS, S, blocked, loop, path, recording, stack

OPTIONAL_NUMBER = (int, float, NoneType)
NUMBER = (int, float)
FRAME = {"file": str, "line": int, "function": str}
CONTRACT: dict[str, Any] = {
    "schema": int,
    "recording": {
        "path": str,
        "source": str,
        "wall_s": NUMBER,
        "threshold_ms": NUMBER,
        "fidelity": {"level": str, "missing": [{"what": str, "why": str}]},
    },
    "loops": [
        {
            "id": int,
            "pid": int,
            "tid": int,
            "kind": str,
            "iterations": int,
            "busy_s": NUMBER,
            "utilization": OPTIONAL_NUMBER,
            "latency_ms": dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), OPTIONAL_NUMBER),
            "log2": [{"lo_us": int, "hi_us": int, "count": int}],
            "shape": str,
            "modes": [{"lo_ms": NUMBER, "hi_ms": NUMBER, "peak_ms": NUMBER, "iterations": int, "share": NUMBER}],
            "valley_ms": OPTIONAL_NUMBER,
            "stalls": {"count": int, "total_ms": NUMBER, "wall_share": OPTIONAL_NUMBER},
            "arrival": {"p_wait_over_threshold": OPTIONAL_NUMBER, "mean_wait_ms": OPTIONAL_NUMBER},
        }
    ],
    "culprits": [
        {
            "rank": int,
            "kind": str,
            "share": NUMBER,
            "stall_ms": NUMBER,
            "stalls": int,
            "cause": str,
            "syscall": (str, NoneType),
            "resource": (str, NoneType),
            "handler": (str, NoneType),
            "location": FRAME,
            "stack": [FRAME],
            "advice": {"summary": str, "code": str},
            "what_if": {"p99_ms": NUMBER, "stall_wall_share": OPTIONAL_NUMBER},
        }
    ],
    "stalls": [
        {
            "loop": int,
            "start_ns": int,
            "duration_ms": NUMBER,
            "handler": (str, NoneType),
            "ledger": dict,
            "culprit": (int, NoneType),
        }
    ],
}
MAY_BE_NULL = {"location", "advice", "what_if"}


def check(value: Any, contract: Any, at: str = "") -> None:
    """Fails at the first key that breaks the contract."""
    if isinstance(contract, dict):
        if value is None and at.rpartition(".")[2] in MAY_BE_NULL:
            return
        assert isinstance(value, dict), at
        for key, inner in contract.items():
            assert key in value, f"{at}.{key}"
            check(value[key], inner, f"{at}.{key}")
    elif isinstance(contract, list):
        assert isinstance(value, list), at
        for element in value:
            check(element, contract[0], at)
    else:
        assert isinstance(value, contract), f"{at}: {value!r}"
        assert not isinstance(value, bool), at


def busy_recording() -> Recording:
    reads = [blocked(50 * MS + k * 1000, path("read", f"/data/{k}.bin"), stack(20), k * 100 * MS) for k in range(150)]
    others = [Stall(1, 20 * S, 70 * MS), Stall(1, 21 * S, 60 * MS, pauses=(GcPause(21 * S, 60 * MS, 2, stack(40)),))]
    saturated = loop([9 * MS] * 6600, loop_id=2, zero_waits=6600)
    loops = (loop([50_000] * 3000 + [one.duration_ns for one in (*reads, *others)]), saturated)
    return recording([*reads, *others], loops, fidelity=Fidelity("agent", (Missing("steal", "no kernel counters"),)))


@pytest.mark.parametrize(
    "made",
    [busy_recording(), recording(()), recording((), ()), recording((), [loop([], wall_ns=0)])],
    ids=["busy", "healthy", "no loop", "loop without iterations"],
)
def test_every_key_of_the_contract_is_there_with_its_type(made: Recording) -> None:
    found = json.loads(render(examine(made)))
    check(found, CONTRACT)
    assert found["schema"] == 1


def test_the_kinds_shapes_and_shares_are_those_of_the_contract() -> None:
    found = as_dict(examine(busy_recording()))
    assert [one["kind"] for one in found["culprits"]] == ["site", "site", "site", "saturation"]
    assert [one["rank"] for one in found["culprits"]] == [1, 2, 3, 4]
    assert found["loops"][0]["shape"] == "bimodal"
    assert sum(one["share"] for one in found["culprits"]) == pytest.approx(1.0, abs=1e-5)
    first = found["culprits"][0]
    assert (first["syscall"], first["resource"], first["cause"]) == ("read", "/data/*.bin", "blocking-syscall")
    assert len(first["resources"]) == 150


def test_every_ledger_sums_to_its_stall() -> None:
    for one in as_dict(examine(busy_recording()))["stalls"]:
        assert sum(one["ledger"].values()) == pytest.approx(one["duration_ms"], abs=1e-5)


def test_the_longest_hundred_stalls_are_listed_unless_all_are_asked_for() -> None:
    found = examine(busy_recording())
    listed = as_dict(found)["stalls"]
    assert len(listed) == 100
    assert [one["duration_ms"] for one in listed] == sorted((one["duration_ms"] for one in listed), reverse=True)
    assert len(as_dict(found, all_stalls=True)["stalls"]) == 152


def test_the_same_recording_gives_the_same_bytes() -> None:
    assert render(examine(busy_recording())) == render(examine(busy_recording()))


def test_more_keys_than_the_contract() -> None:
    ticks = [blocked(50 * MS, path("read", "/a"), stack(20), k * 5 * S) for k in range(12)]
    found = as_dict(examine(recording(ticks), what_if=Removal((1,))))
    assert found["causes"] == [{"cause": "blocking-syscall", "share": 1.0, "stall_ms": 600.0, "stalls": 12}]
    assert found["culprits"][0]["ledger"] == {"blocking-syscall": 600.0}
    assert found["culprits"][0]["pool"]["threads"] == 1
    assert found["culprits"][0]["advice"]["remedy"] == "read"
    assert found["patterns"][0]["period_ms"] == 5000.0
    assert [one["own_ms"] for one in found["handlers"]] == [600.0]
    assert found["prediction"]["stalls"]["count"] == 0
    assert as_dict(examine(recording(ticks)))["prediction"] is None


def test_what_fills_a_mode_what_else_passed_and_what_all_remedies_gain() -> None:
    pool = Executor(1, "asyncio", True, 6, 3, 40, 60, 2, 5)
    found = as_dict(examine(busy_recording()._replace(executors=(pool,))))
    (mode,) = [one for one in found["loops"][0]["modes"] if one["stall_mode"]]
    assert mode["culprits"][0] == {"culprit": mode["culprit"], "share": mode["culprit_share"]}
    assert sum(one["share"] for one in mode["culprits"]) == pytest.approx(1, abs=1e-5)
    assert [one["cause"] for one in mode["causes"]] == ["blocking-syscall", "unexplained", "gc"]
    for one in found["culprits"][:3]:
        assert sum(one["stalls_ledger"].values()) >= sum(one["ledger"].values())
    assert [one["culprits"] for one in found["gains"]] == [[], [1], [1, 3]]
    assert found["executors"] == [
        {
            "name": "asyncio",
            "default": True,
            "most_threads": 6,
            "threads": 3,
            "mean_busy": 1.5,
            "queued_share": 0.05,
            "deepest_queue": 5,
        }
    ]
    assert found["culprits"][0]["pool"]["executor"] == found["executors"][0]
