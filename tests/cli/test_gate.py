"""``stallscope gate`` and ``stallscope baseline`` as people call them: exit codes, files, one sentence for an error."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stallscope.recording.nouns import CallSite, Fidelity, Stall
from stallscope.recording.store import store
from tests.analysis.recordings import MS, loop
from tests.gate.runs import OLD, OPEN, computing, made, site
from tests.ingest.expected import TRACES
from tests.recording.examples import new_writer

PYPROJECT = '[project]\nname = "shop"\n'
Stallscope = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


@pytest.fixture
def stallscope(project: Path) -> Stallscope:
    """Runs a command in the project; CI's own variables would add outputs."""

    def call(*words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        foreign = ("GITHUB_", "GITLAB_", "CI_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        done = subprocess.run(
            [sys.executable, "-m", "stallscope", *words],
            cwd=project, env={**inherited, "COLUMNS": "100", **variables}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    return call


def write(path: Path, stalls: Sequence[Stall] = (), sites: Sequence[CallSite] = (site(OLD),), **changes: Any) -> Path:
    recorded = made(stalls, sites, **changes)
    writer = new_writer(path)
    store(recorded, writer)
    writer.close(-recorded.started_ns * 1_000_000_000)  # recordings that end at different times are different ones
    return path


@pytest.fixture
def old(project: Path) -> Path:
    return write(project / "old.stall")


@pytest.fixture
def new(project: Path) -> Path:
    return write(project / "new.stall", sites=(site(OLD), site(OPEN)))


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.splitlines()
    assert done.stdout == ""
    return line


def test_the_first_run_passes_and_says_how_to_make_a_baseline(stallscope: Stallscope, new: Path) -> None:
    for words in (["new.stall"], ["new.stall", "--baseline", "none.jsonl"]):
        done = stallscope("gate", *words)
        assert done.stdout.startswith("pass: ")
        assert "make one with: stallscope baseline update new.stall, and commit it" in done.stderr
    stallscope("gate", "new.stall", "--require-verdict", code=4)


def test_from_nothing_to_a_gate(stallscope: Stallscope, project: Path, old: Path, new: Path) -> None:
    assert "1 run, 1 call site (1 new, 0 gone); commit it" in stallscope("baseline", "update", "old.stall").stderr
    assert stallscope("gate", "old.stall").stdout.startswith("pass")
    failed = stallscope("gate", "new.stall", code=1)
    assert failed.stdout.startswith("fail: new blocking call openat(/etc/shop.conf)")
    assert failed.stderr == ""
    stallscope("baseline", "accept", "*:Server.load:open", "--reason", "read once")
    assert "accepted: openat(/etc/shop.conf)" in stallscope("gate", "new.stall").stdout
    stallscope("baseline", "accept", "*:Server.load:open", "--reason", "read once", "--until", "2020-01-31")
    assert "expired on 2020-01-31" in stallscope("gate", "new.stall", code=1).stdout
    stallscope("baseline", "update", "new.stall")
    assert stallscope("gate", "new.stall").stdout.startswith("pass")
    shown = stallscope("baseline", "show").stdout
    assert "baseline of shop: 2 runs" in shown
    assert "Server.load: open (path)" in shown
    assert len(json.loads(stallscope("baseline", "show", "--json").stdout)["sites"]) == 2


def test_recordings_may_be_the_baseline_several_a_side(stallscope: Stallscope, project: Path, old: Path) -> None:
    for number in range(3):
        write(project / f"slow{number}.stall", [computing(60 * MS)] * 8)
        write(project / f"fast{number}.stall")
    slow, fast = ([f"{name}{n}.stall" for n in range(3)] for name in ("slow", "fast"))
    given = [word for name in fast for word in ("--baseline", name)]
    told = json.loads(stallscope("gate", *slow, *given, "--json", code=1).stdout)
    assert (told["runs"], told["baseline_runs"]) == (3, 3)
    assert {one["rule"] for one in told["rules"] if one["outcome"] == "fail"} == {
        "new culprits", "stall rate", "stall time",
    }  # fmt: skip


def test_updating_twice_with_the_same_run_leaves_the_file_as_it_is(
    stallscope: Stallscope, project: Path, old: Path
) -> None:
    stallscope("baseline", "update", "old.stall")
    first = (project / "stallscope-baseline.jsonl").read_bytes()
    stallscope("baseline", "update", "old.stall")
    assert (project / "stallscope-baseline.jsonl").read_bytes() == first


def test_budgets_come_from_pyproject_and_the_command_line_has_the_last_word(
    stallscope: Stallscope, project: Path
) -> None:
    write(project / "slow.stall", [computing(60 * MS)] * 8)
    stallscope("gate", "slow.stall")
    (project / "pyproject.toml").write_text(PYPROJECT + '[tool.stallscope.gate]\nmax-stall = "50ms"\n')
    assert "longest stall" in stallscope("gate", "slow.stall", code=1).stdout
    stallscope("gate", "slow.stall", "--max-stall", "70ms")
    stallscope("gate", "slow.stall", "--max-stall", "off")
    settings = 'require-verdict = true\nbaseline = "ci/base.jsonl"\nstalls-per-minute = 9\nstall-share = "1%"\n'
    (project / "pyproject.toml").write_text(f"{PYPROJECT}[tool.stallscope.gate]\n{settings}")
    (project / "ci").mkdir()
    stallscope("gate", "slow.stall", code=4)
    stallscope("baseline", "update", "slow.stall")
    assert (project / "ci" / "base.jsonl").exists()
    stallscope("gate", "slow.stall", "--handler-max", "Server.handle=1us", code=1)


def test_a_warning_hides_from_nobody_that_the_runs_could_not_have_shown_a_stall(
    stallscope: Stallscope, project: Path, old: Path
) -> None:
    few = loop([50_000] * 1_000)  # and calls that are drawn, as the pulse does: neither says enough
    write(project / "one.stall", sites=(site(OLD), site(OPEN, hits=2)), loops=(few,), fidelity=Fidelity("pulse"))
    told = stallscope("gate", "one.stall", "--baseline", "old.stall", "--require-verdict", code=4).stdout
    told = " ".join(told.split())
    assert told.startswith("warn: perhaps a new blocking call openat(/etc/shop.conf)")
    assert "; too little data: no less than stalls where the baseline has none could have been shown (8 stalls" in told


def test_what_the_baselines_recorder_did_not_count_is_said_and_does_not_fail(
    stallscope: Stallscope, project: Path
) -> None:
    counted: dict[str, Any] = {"recorder": "0.1.0", "counted_calls": frozenset({"openat", "write"})}
    write(project / "new.stall", sites=(site(OLD), site(OPEN)), **counted)
    write(project / "old.stall", **counted)
    with closing(sqlite3.connect(project / "old.stall")) as db:
        db.executescript("DELETE FROM counted_call WHERE name = 'openat'; UPDATE recording SET recorder = '0.0.9'")
    stallscope("baseline", "update", "old.stall")
    told = " ".join(stallscope("gate", "new.stall").stdout.split())
    assert told.startswith("inconclusive: new culprits:")
    assert "the baseline cannot tell of: openat(/etc/shop.conf) at /srv/app/server.py:20" in told
    assert "recorded by another stallscope (0.0.9; here 0.1.0)" in told
    assert "stallscope baseline update" in told
    stallscope("gate", "new.stall", "--require-verdict", code=4)
    write(project / "renewed.stall", **counted)
    stallscope("baseline", "update", "renewed.stall")
    assert stallscope("gate", "new.stall", code=1).stdout.startswith("fail: new blocking call openat(")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_branches_that_each_accepted_a_run_merge(stallscope: Stallscope, project: Path, old: Path, new: Path) -> None:
    def git(*words: str) -> None:
        own = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *own, *words], cwd=project, check=True, capture_output=True)

    def accept(branch: str, run: str, pattern: str) -> None:
        git("checkout", "-q", "-B", branch, "trunk")
        stallscope("baseline", "update", run)
        stallscope("baseline", "accept", pattern, "--reason", branch)
        git("commit", "-qam", branch)

    write(project / "else.stall", sites=(site(OLD), site(OPEN, function="Server.start")))
    (project / ".gitattributes").write_text("stallscope-baseline.jsonl merge=union\n")
    git("init", "-q", "-b", "trunk")
    stallscope("baseline", "update", "old.stall")
    git("add", ".gitattributes", "stallscope-baseline.jsonl")
    git("commit", "-qm", "begin")
    accept("one", "new.stall", "*:one")
    accept("two", "else.stall", "*:two")
    git("merge", "-q", "-m", "both", "one")
    told = json.loads(stallscope("baseline", "show", "--json").stdout)
    assert (len(told["runs"]), len(told["sites"])) == (3, 3)
    for run in ("new.stall", "else.stall"):
        assert stallscope("gate", run).stdout.startswith("pass")
    stallscope("baseline", "update", "new.stall")  # writes it sorted again
    lines = (project / "stallscope-baseline.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 9


def test_known_culprits_of_pyproject(stallscope: Stallscope, project: Path, old: Path, new: Path) -> None:
    stallscope("baseline", "update", "old.stall")
    allow = '[[tool.stallscope.gate.allow]]\nsite = "*:Server.load"\nreason = "small"\nuntil = 2099-12-31\n'
    (project / "pyproject.toml").write_text(PYPROJECT + allow)
    assert "accepted until 2099-12-31" in stallscope("gate", "new.stall").stdout


def test_every_output_is_written(stallscope: Stallscope, project: Path, old: Path, new: Path) -> None:
    (project / "app").mkdir()
    (project / "app" / "server.py").touch()
    summary = project / "summary.md"
    summary.write_text("before\n")
    outputs = ["--junit", "j.xml", "--sarif", "s.sarif", "--markdown", "summary.md"]
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "GITLAB_CI": "true",
                 "CI_PROJECT_DIR": str(project)}  # fmt: skip
    done = stallscope("gate", "new.stall", "--baseline", "old.stall", "--json", *outputs, code=1, **variables)
    json.loads(done.stdout)
    assert "::error file=app/server.py,line=20,title=stallscope%3A new blocking call::New blocking" in done.stderr
    assert json.loads((project / "gl-code-quality-report.json").read_text())[0]["location"]["path"] == "app/server.py"
    assert (project / "j.xml").read_text().startswith("<?xml")
    assert json.loads((project / "s.sarif").read_text())["version"] == "2.1.0"
    assert summary.read_text().startswith("before\n### stallscope: fail")
    assert not list(project.glob(".*.*"))


def test_a_file_of_a_container_is_the_projects(stallscope: Stallscope, project: Path, old: Path, new: Path) -> None:
    (project / "app").mkdir()
    (project / "app" / "server.py").touch()
    (one,) = json.loads(stallscope("gate", "new.stall", "--baseline", "old.stall", "--json", code=1).stdout)[
        "new_culprits"
    ]
    assert one["site"]["file"] == "app/server.py"
    assert one["stack"][0]["file"] == "/srv/app/server.py"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["new.stall", "--baseline", "new.stall"], "new.stall is on both sides"),
        (["new.stall", "new.stall"], "new.stall is given twice"),
        (["none.stall"], "none.stall does not exist"),
        (["new.stall", "--baseline", "none.stall"], "none.stall does not exist"),
        (["base.jsonl"], "base.jsonl is a baseline, not a recording: give it with --baseline"),
        (["new.stall", "--baseline", "bank.jsonl"], "is the baseline of the project 'bank', not of 'shop'"),
        (["new.stall", "--baseline", "later.jsonl"], "is a baseline of schema 9"),
        (["new.stall", "--baseline", "empty.jsonl"], "empty.jsonl is empty, not a baseline"),
        (["new.stall", "--baseline", "bytes.jsonl"], "bytes.jsonl is not a baseline: it is no text"),
        (["new.stall", "--max-stall", "100"], "--max-stall '100' is no duration: it has no unit"),
        (["new.stall", "--p99", "-5ms"], "--p99 '-5ms' is no duration"),
        (["new.stall", "--stall-share", "150%"], "--stall-share '150%' is no share"),
        (["new.stall", "--stall-share", "few"], "--stall-share 'few' is no share"),
        (["new.stall", "--stalls-per-minute", "-1"], "--stalls-per-minute -1.0 is no number of stalls a minute"),
        (["new.stall", "--handler-max", "20ms"], "names no handler with its limit"),
        (["new.stall", "--handler-max", "f=20"], "--handler-max f '20' is no duration"),
        (["new.stall", "--sarif", "no/such/place"], "cannot write no/such/place: no such file or directory"),
    ],
)  # fmt: skip
def test_what_is_wrong_gets_one_sentence(
    stallscope: Stallscope, project: Path, new: Path, words: list[str], says: str
) -> None:
    (project / "base.jsonl").write_text('{"stallscope-baseline": 1, "project": "shop"}\n')
    (project / "bank.jsonl").write_text('{"stallscope-baseline": 1, "project": "bank"}\n')
    (project / "later.jsonl").write_text('{"stallscope-baseline": 9, "project": "shop"}\n')
    (project / "empty.jsonl").touch()
    (project / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    assert says in sentence(stallscope("gate", *words, code=2))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('[tool.stallscope.gate]\nmax-stal = "1ms"', "has the setting 'max-stal', which there is not"),
        ("[tool.stallscope.gate]\nmax-stall = 100", "max-stall = 100 is no text"),
        ('[tool.stallscope.gate]\nstall-share = "lots"', "[tool.stallscope.gate] stall-share 'lots' is no share"),
        ('[tool.stallscope.gate]\nstalls-per-minute = "six"', "'six' is no number of stalls"),
        ('[tool.stallscope.gate]\nhandler-max = "20ms"', "handler-max is no table"),
        ('[tool.stallscope.gate]\nallow = "x"', "allow is no list"),
        ('[[tool.stallscope.gate.allow]]\nsite = "x"', "needs a site"),
        ('[[tool.stallscope.gate.allow]]\nsite = "x"\nreason = "y"\nuntil = "soon"', "until 'soon' is no date"),
        ("[tool.stallscope]\ngate = 1", "is no table: write [tool.stallscope.gate]"),
        ("[tool", "cannot read"),
    ],
)
def test_settings_that_are_wrong_get_one_sentence(
    stallscope: Stallscope, project: Path, new: Path, settings: str, says: str
) -> None:
    (project / "pyproject.toml").write_text(f"{PYPROJECT}{settings}\n")
    assert says in sentence(stallscope("gate", "new.stall", code=2))


def test_accepting_needs_a_reason_and_a_date_that_is_one(stallscope: Stallscope) -> None:
    assert "needs a pattern and a reason" in sentence(stallscope("baseline", "accept", "x", "--reason", " ", code=2))
    words = ("baseline", "accept", "x", "--reason", "y", "--until", "tomorrow")
    assert "'tomorrow' is no date" in sentence(stallscope(*words, code=2))
    assert "cannot read" in sentence(stallscope("baseline", "show", code=2))


@pytest.mark.parametrize("words", [("gate", "torn.strace"), ("gate", "old.stall", "--baseline", "torn.strace")])
def test_a_trace_that_is_no_evidence_is_neither_passed_nor_failed(
    words: tuple[str, ...], stallscope: Stallscope, project: Path, old: Path
) -> None:
    whole = (TRACES / "file_server.strace.txt").read_text().splitlines()
    torn = "\n".join(line if number % 5 else line[:20] for number, line in enumerate(whole))
    (project / "torn.strace").write_text(torn)
    done = stallscope(*words, code=4)
    assert not done.stdout
    assert "torn.strace holds too little data to judge: 180 of 900 lines could not be read" in " ".join(
        done.stderr.split()
    )
    stallscope("analyze", "torn.strace")  # which shows what is left of it, and says the same there
