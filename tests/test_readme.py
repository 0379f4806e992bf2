"""The README is true: its commands run, and what it shows is what they print."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import terminal

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def _skeleton(text: str) -> list[str]:
    """What stays from run to run: the words of each line, without figures, bars, paths and the blanks between."""
    lines = (re.sub(r"[\d.,:|*<>~…#%\]\[-]+|\S*/\S*", " ", line) for line in text.splitlines())
    return [" ".join(line.split()) for line in lines]


def _words(text: str) -> Iterator[str]:
    """Words that name things: functions, calls, causes. Units and the like are too short to count."""
    for line in _skeleton(text):
        yield from (word for word in re.findall(r"[A-Za-z_]+", line) if len(word) > 3)


def _environment() -> dict[str, str]:
    scripts = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"}


def _run(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = command.replace("samples/", f"{shlex.quote(str(ROOT))}/samples/")
    return subprocess.run(
        command, shell=True, cwd=directory, env=_environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the README's main job has just been done."""
    directory = tmp_path_factory.mktemp("readme")
    finished = _run(_main_job()[0], directory)
    assert finished.returncode == 0, finished.stderr
    return directory


def _main_job() -> tuple[str, str]:
    """The recording and the analyzing half of the first command, as an installed stallscope runs them."""
    *_, record, analyze = _blocks("sh")[0].strip().replace(".venv/bin/", "").split(" && ")
    return record, analyze


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert _blocks("sh")[1].strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_report_shown_is_what_the_main_job_prints(recorded: Path) -> None:
    shown = _blocks("console")[0].split("\n", 1)[1]
    finished = _run(_main_job()[1], recorded)
    assert finished.returncode == 0, finished.stderr
    printed = set(_words(finished.stdout))
    noise = {"descheduled", "unexplained", "others", "each", "under"}  # rows that a busy machine adds
    missing = {word for word in _words(shown) if word not in printed} - noise
    assert not missing, f"the README shows what is not printed: {sorted(missing)}"
    assert "bimodal" in finished.stdout


def test_the_closing_line_shown_is_what_run_prints(recorded: Path) -> None:
    command, shown = _blocks("console")[1][2:].split("\n", 1)
    finished = _run(command, recorded)
    assert finished.returncode == 0
    assert _skeleton(finished.stderr)[-1] == _skeleton(shown)[-1]
    assert _skeleton(finished.stdout) == _skeleton(shown)[:-1]


@pytest.mark.usefixtures("ptrace")
def test_the_live_view_shown_is_what_top_shows() -> None:
    shown = set(_words(_blocks("console")[2].split("\n", 1)[1]))
    noise = {"waits", "work", "slow"}  # what it does in this very moment; the start of a name that is cut
    server = subprocess.Popen(
        [sys.executable, "samples/file_server.py", "--demo", "60"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready")
        with terminal("top", str(server.pid), cwd=ROOT) as view:
            view.until(lambda lines: shown - noise <= set(_words("\n".join(lines))))
            view.type("q")
            assert "stalls of 10ms or more" in view.ended()
    finally:
        server.kill()
        server.communicate()


def test_the_foreign_trace_shown_reads_to_the_letter() -> None:
    command, shown = _blocks("console")[3][2:].split("\n", 1)
    finished = subprocess.run(
        command, shell=True, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=True
    )
    assert finished.stdout == shown


def test_the_commands_for_several_traces_run(tmp_path: Path) -> None:
    (block,) = [block for block in _blocks("sh") if "worker1" in block]
    traces = ROOT / "samples" / "traces"
    lines = [line for line in (traces / "pool.strace.txt").read_text().splitlines() if " resumed>" not in line]
    for name, tid in (("trace.100", lines[0].split()[0]), ("trace.101", lines[-1].split()[0])):
        own = [line.split(None, 1)[1] for line in lines if line.startswith(f"{tid} ") and "<unfinished" not in line]
        (tmp_path / name).write_text("\n".join(own) + "\n")
    (tmp_path / "worker1.txt.gz").write_bytes(gzip.compress((traces / "nginx.strace.txt").read_bytes()))
    (tmp_path / "worker2.txt").write_bytes((traces / "redis.perf-trace.txt").read_bytes())
    for command in block.strip().splitlines():
        finished = _run(command, tmp_path)
        assert (finished.returncode, finished.stderr) == (0, ""), command
    assert (tmp_path / "before.stall").exists()


def test_a_recording_answers_the_sql_shown(recorded: Path) -> None:
    import sqlite3

    query = re.search(r'sqlite3 demo.stall "(.+)"', README)
    assert query is not None
    with sqlite3.connect(recorded / "demo.stall") as database:
        rows = database.execute(query[1]).fetchall()
    assert len(rows) > 10
    assert all(count > 0 for _, count in rows)


def test_the_export_shown_is_what_export_prints(recorded: Path) -> None:
    (block,) = [block for block in _blocks("console") if "stallscope export" in block]
    command, heading, *shown = block[2:].splitlines()
    finished = _run(command.partition(" | head")[0], recorded)
    assert (finished.returncode, finished.stderr) == (0, "")
    printed = finished.stdout.splitlines()
    assert printed[0] == heading
    assert {line.split(",", 3)[3] for line in shown} <= {line.split(",", 3)[3] for line in printed}


def test_the_commands_for_exports_run(recorded: Path) -> None:
    (block,) = [block for block in _blocks("sh") if "stallscope export" in block]
    for command in block.strip().splitlines():
        assert _run(command, recorded).returncode == 0, command
        assert (recorded / command.partition("  #")[0].split()[-1]).stat().st_size > 100


@pytest.mark.parametrize("line", [line for block in _blocks("sh")[2:3] for line in block.strip().splitlines()])
def test_usage_lines_name_real_options(line: str) -> None:
    words = shlex.split(line.split("  #")[0])
    assert words[:2] == ["stallscope", "run"]
    finished = _run("stallscope run --help", ROOT)
    options = [word for word in words[2:3] if word.startswith("-") and word != "--"]
    assert all(option in finished.stdout for option in options)


def test_the_gate_shown_is_what_gate_prints(tmp_path: Path) -> None:
    lines = _blocks("console")[4].splitlines()
    commands, shown = [line[2:] for line in lines if line.startswith("$ ")], lines[3:-1]
    for command in commands[:2]:
        assert _run(command, tmp_path).returncode == 0
    finished = _run(commands[2], tmp_path)
    assert finished.returncode == 1, finished.stdout
    printed = set(_words(finished.stdout))
    noise = {"longest", "pass", "fail", "skipped"}  # which budgets hold is the machine's doing
    missing = {word for word in _words("\n".join(shown)) if word not in printed} - noise
    assert not missing, f"the README shows what is not printed: {sorted(missing)}"


def test_the_settings_shown_are_settings(tmp_path: Path) -> None:
    (settings,) = _blocks("toml")
    (tmp_path / "pyproject.toml").write_text(settings)
    finished = _run("stallscope baseline show", tmp_path)
    assert "cannot read" in finished.stderr  # there is no baseline, but nothing was wrong before that
    from stallscope.cli.gate_policy import Asked, policy_of
    from stallscope.cli.project import find_project

    policy = policy_of(find_project(tmp_path), Asked())
    assert policy.budgets.handler_max_ns == {"Server.search": 20_000_000}
    assert policy.allowances[0].reason == "once, at the start"


@pytest.mark.parametrize("sample", sorted((ROOT / "samples" / "ci").iterdir()), ids=lambda path: path.name)
def test_the_workflows_use_real_options(sample: Path) -> None:
    lines = re.findall(r"(stallscope gate|stallscope baseline update|pytest) ([^\n]*)", sample.read_text())
    assert {command for command, _ in lines} >= {"stallscope gate", "pytest"}
    for command, words in lines:
        options = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", words))
        helped = _run(f"{command} --help", ROOT).stdout
        assert options <= set(re.findall(r"--[a-z][a-z-]+", helped)), (command, words)
