"""The promise of the README: record the sample under load, and read which lines stall it."""

from __future__ import annotations

import json
import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.observing import STALLSCOPE, execute

SERVER = Path(__file__).parents[2] / "samples" / "file_server.py"
Json = dict[str, Any]


def record(cwd: Path, *words: str) -> Json:
    """Run the sample under load for three seconds, and analyze it."""
    watched = execute((*STALLSCOPE, "run", "-o", "x.stall", str(SERVER), "--demo", "3", *words), cwd)
    assert watched.code == 0, watched
    assert "next: stallscope analyze x.stall" in watched.said
    analyzed = execute((*STALLSCOPE, "analyze", "x.stall", "--json"), cwd)
    assert (analyzed.code, analyzed.stderr) == (0, b"")
    findings: Json = json.loads(analyzed.stdout)
    return findings


def truth(*words: str) -> list[Json]:
    """What the sample says of itself."""
    calls: list[Json] = json.loads(execute((sys.executable, str(SERVER), "--print-truth", *words), Path.cwd()).stdout)
    return calls


def server_loop(findings: Json) -> Json:
    """The server's own loop: its load generator is a process too."""
    loop: Json = max(findings["loops"], key=lambda loop: loop["stalls"]["total_ms"] + loop["iterations"] / 1e9)
    return loop


def blocking(findings: Json) -> list[Json]:
    """The culprits that block in a call, heaviest first; what happens once or twice is the machine's."""
    return [one for one in findings["culprits"] if one["cause"] == "blocking-syscall" and one["stalls"] > 2]


def same(culprit: Json, call: Json) -> bool:
    """Whether a culprit is that true call: function, file, line, system call, resource."""
    location = culprit["location"]
    return (
        location["function"] in (call["function"], call["function"].rpartition(".")[2])
        and os.path.samefile(location["file"], call["file"])
        and location["line"] == call["line"]
        and culprit["syscall"] == call["syscall"]
        and fnmatch(culprit["resource"] or "", call["resource"])
        and call["handler"] in culprit["handler"]
    )


@pytest.fixture(scope="module")
def untreated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    """A recording of the sample without a remedy."""
    directory = tmp_path_factory.mktemp("sample")
    return directory, record(directory)


def test_it_is_bimodal_and_its_culprits_are_the_true_ones(untreated: tuple[Path, Json]) -> None:
    _, findings = untreated
    assert server_loop(findings)["shape"] == "bimodal"
    culprits, calls = blocking(findings), truth()
    assert len(calls) >= 2
    found = [[call["syscall"] for call in calls if same(culprit, call)] for culprit in culprits[: len(calls)]]
    assert sorted(found) == sorted([call["syscall"]] for call in calls), culprits


def test_its_report_names_them(untreated: tuple[Path, Json]) -> None:
    directory, _ = untreated
    report = execute((*STALLSCOPE, "analyze", "x.stall"), directory)
    text = report.stdout.decode()
    assert (report.code, report.stderr) == (0, b"")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "bimodal" in text
    for call in truth():
        assert f"{call['syscall']}(" in text
        assert f"{Path(call['file']).name}:{call['line']}" in text


ANSWERS = {
    "is it serious?": r"stalled [\d.]+ % of the time: \d+ stalls of 10 ms or more",
    "what do users feel?": r"who comes at a random moment meets a stall with a chance of [\d.]+ %, and waits",
    "is it a disk, a lock, or the CPU?": r"In its stalls the loop: [\d.]+ % waits in a system call",
    "which handler do I change?": r"FileServer\.handle_client ",
    "which line?": r"(access_log|file_server)\.py:\d+ in (AccessLog\.write_page|read_block|open_file)",
    "which file or peer?": r"(write\(\S*access\.log|read\(\S*cold/\*\.bin|openat\(\S*backup/\*\.bin)\)",
    "what do I write instead?": r"(lines\.put\(line\)|await asyncio\.to_thread\((read_block|open_file), \.\.\.\))",
    "what will it buy?": r"Mend #\d first: stalls take [\d.]+ % of the time then",
    "is one remedy enough?": r"then, [\d.<]+ % without (#\d to #\d|#\d and #\d|the \d with a remedy)",
    "is all slow, or some?": r"p50 [\d.]+ µs, .*; (bi|multi)modal .* mode 2 near [\d.]+ ms, .*: [\d.]+ % of iterations",
}
MORE_ANSWERS = {
    "is it a timer, do all workers stall at once?": r"The stalls keep no period, and no two processes|cadence:",
    "who suffers?": r"took inflicted suffered calls handler",
    "how many threads, and do they queue?": r"A thread pool for it: .* need \d threads?; .* The (default|process used)",
}


def test_ten_questions_of_an_engineer_on_call_are_answered(untreated: tuple[Path, Json]) -> None:
    directory, _ = untreated
    for words, answers in (((), ANSWERS), (("-v",), MORE_ANSWERS)):
        text = " ".join(execute((*STALLSCOPE, "analyze", "x.stall", *words), directory).stdout.decode().split())
        unanswered = [question for question, answer in answers.items() if not re.search(answer, text)]
        assert unanswered == [], text


def test_its_report_is_one_screen(untreated: tuple[Path, Json]) -> None:
    directory, _ = untreated
    text = execute((*STALLSCOPE, "analyze", "x.stall"), directory).stdout.decode()
    assert (
        24 <= len(text.splitlines()) <= 46
    )  # a busy machine adds a row of "descheduled", and a valley of several rows


def test_with_every_remedy_nothing_blocks(tmp_path: Path) -> None:
    findings = record(tmp_path, "--fix", "all")
    assert truth("--fix", "all") == []
    assert server_loop(findings)["shape"] != "bimodal"
    assert blocking(findings) == []


def test_offloading_the_read_alone_leaves_the_open(tmp_path: Path) -> None:
    findings = record(tmp_path, "--fix", "read-offload,buffered-log")
    (call,) = truth("--fix", "read-offload,buffered-log")
    assert call["syscall"] == "openat"
    (culprit,) = blocking(findings)
    assert same(culprit, call), culprit
