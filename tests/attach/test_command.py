"""``stallscope attach``, as real processes: what it says, how it ends, and what the target is like afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stallscope.analysis.examine import examine
from stallscope.recording.reader import read
from tests.attach.programs import TICKING
from tests.attach.targets import PATIENCE_S, Target, running

pytestmark = pytest.mark.usefixtures("ptrace")

ATTACH = (sys.executable, "-m", "stallscope", "attach")
NOBODY = 65534


def attached(target: Target, *options: str, cwd: Path) -> subprocess.Popen[str]:
    """A running ``stallscope attach`` that has said that it is aboard."""
    command = (*ATTACH, str(target.pid), "-o", "x.stall", *options)
    process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    facts, line = process.stderr.readline(), process.stderr.readline()
    assert f"process {target.pid}: CPython" in facts, facts
    assert f"aboard process {target.pid}" in line, line
    assert "paused for" in line
    return process


def ended(process: subprocess.Popen[str]) -> str:
    """What it says as it ends, which must be well."""
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0, said
    return said


def executed(*words: str, cwd: Path) -> tuple[int, str]:
    """Exit code and sentence of an attach that ends by itself."""
    done = subprocess.run((*ATTACH, *words), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_names_the_culprit_and_leaves_no_trace(tmp_path: Path) -> None:
    with running(sys.executable, "ticking") as target:
        before = target.report()
        said = ended(attached(target, "--duration", "1s", cwd=tmp_path))
        assert target.settled(before) == before
    assert "stalls of 10ms or more" in said
    culprit = examine(read(tmp_path / "x.stall")).culprits[0]
    assert culprit.cause == "blocking-syscall"
    assert culprit.stack[0].function == "ticking"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_well(number: signal.Signals, tmp_path: Path) -> None:
    with running(sys.executable, "ticking") as target:
        before = target.report()
        process = attached(target, cwd=tmp_path)
        process.send_signal(number)
        ended(process)
        assert target.settled(before) == before


def test_the_end_of_the_target_is_its_own(tmp_path: Path) -> None:
    target = Target(sys.executable, "ticking")
    process = attached(target, cwd=tmp_path)
    target.end()
    assert "ended" in ended(process)


def test_a_second_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with running(sys.executable, "ticking") as target:
        first = attached(target, cwd=tmp_path)
        code, said = executed(str(target.pid), "-o", "second.stall", cwd=tmp_path)
        assert code == 3
        assert f"(process {first.pid})" in said
        assert not (tmp_path / "second.stall").exists()
        assert "_stallscope_agent" in target.report()["modules"]
        first.send_signal(signal.SIGINT)
        ended(first)


def test_a_killed_one_is_noticed_and_the_next_takes_over(tmp_path: Path) -> None:
    with running(sys.executable, "ticking") as target:
        before = target.report()
        process = attached(target, cwd=tmp_path)
        process.kill()
        process.communicate()
        ended(attached(target, "--duration", "300ms", "--force", cwd=tmp_path))
        assert target.settled(before) == before


def test_the_agent_leaves_by_itself_when_its_owner_is_killed(tmp_path: Path) -> None:
    with running(sys.executable, "idle") as target:
        before = target.report()
        process = attached(target, cwd=tmp_path)
        process.kill()
        process.communicate()
        assert target.settled(before) == before


def test_a_hung_handler_is_seen(tmp_path: Path) -> None:
    with running(sys.executable, "sleep") as target:
        ended(attached(target, "--duration", "2s", cwd=tmp_path))
    stalls = read(tmp_path / "x.stall").stalls
    assert any(frame.function == "blocking" for stall in stalls for span in stall.spans for frame in span.stack)


def test_a_process_without_a_loop_is_said_so(tmp_path: Path) -> None:
    code = "print('ready', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    status, said = executed(str(process.pid), "-o", "x.stall", "--duration", "200ms", cwd=tmp_path)
    assert status == 0
    assert "no asyncio loop" in said
    assert process.communicate(b"\n")[1] == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nonsense",), 2, "no process number"),
        (("1", "--duration", "soon"), 2, "is no duration"),
        (("1", "--method", "magic"), 2, "is unknown"),
        (("4194303",), 3, "there is no process"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], code: int, sentence: str, tmp_path: Path) -> None:
    status, said = executed(*words, cwd=tmp_path)
    assert (status, said.count("\n")) == (code, 1)
    assert sentence in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of other users")
def test_root_attaches_to_another_users_process(tmp_path: Path) -> None:
    code = "import asyncio, time\nprint('ready', flush=True)\n"
    code += "async def main():\n while 1:\n  await asyncio.sleep(.005); time.sleep(.02)\nasyncio.run(main())"
    python = "/usr/bin/python3"
    if not os.path.exists(python):
        pytest.skip("there is no Python that every user may run")
    process = subprocess.Popen(
        [python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, user=NOBODY, group=NOBODY
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    status, said = executed(str(process.pid), "-o", "x.stall", "--duration", "500ms", cwd=tmp_path)
    assert process.poll() is None
    process.kill()
    assert process.communicate()[1] == b""
    assert (status, "stalls of 10ms" in said) == (0, True), said


def test_an_idle_loop_has_no_iteration(tmp_path: Path) -> None:
    with running(sys.executable, "idle") as target:
        assert "nothing to analyze" in ended(attached(target, "--duration", "500ms", cwd=tmp_path))
    assert not (tmp_path / "x.stall").exists()


def as_nobody(*command: str, cwd: str = "/") -> subprocess.Popen[str]:
    """Started by another user, who finds our package and what it needs."""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *(path for path in sys.path if "site-packages" in path)])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, user=NOBODY, group=NOBODY,
        extra_groups=[], env={"PYTHONPATH": paths, "PATH": os.environ["PATH"]},
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unprivileged_user_attaches_to_a_process_of_their_own() -> None:
    python, version = "/usr/bin/python3", f"{sys.version_info[0]}.{sys.version_info[1]}"
    asked = "import sys, stallscope.cli.app, psutil; print('%d.%d' % sys.version_info[:2])"
    found, complaint = as_nobody(python, "-c", asked).communicate(timeout=PATIENCE_S)
    if found.strip() != version:
        pytest.skip(f"another user cannot run us here: {complaint.strip()[-200:] or found}")
    with tempfile.TemporaryDirectory() as own:
        os.chown(own, NOBODY, NOBODY)
        target = as_nobody(python, "-S", "-c", TICKING)
        try:
            assert target.stdout is not None
            assert target.stdout.readline() == "ready\n"
            options = ("-o", "x.stall", "--duration", "1s")
            attach = as_nobody(python, "-m", "stallscope", "attach", str(target.pid), *options, cwd=own)
            said = attach.communicate(timeout=PATIENCE_S)[1]
            assert target.poll() is None
        finally:
            target.kill()
            complaint = target.communicate()[1]
    assert complaint == ""
    assert (attach.returncode, "stalls of 10ms" in said) == (0, True), said


def test_the_debugger_must_be_insisted_on(tmp_path: Path) -> None:
    with running(sys.executable, "idle") as target:
        code, said = executed(str(target.pid), "--method", "debugger", cwd=tmp_path)
    assert code == 2
    assert "add --force if you accept that" in said


@pytest.mark.skipif(not shutil.which("gdb"), reason="there is no gdb")
def test_the_debugger_brings_the_agent_aboard(tmp_path: Path) -> None:
    with running(sys.executable, "ticking") as target:
        before = target.report()
        code, said = executed(
            str(target.pid), "--method", "debugger", "--force", "--duration", "1s", "-o", "x.stall", cwd=tmp_path
        )
        assert target.settled(before) == before
    if "gdb cannot call into processes on this machine" in said:
        pytest.skip(said)
    assert (code, "by debugger" in said) == (0, True), said


def test_a_debugger_that_cannot_call_is_kept_off_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gdb 13.1 on a CPU with registers that it does not know breaks off the system call that a process is in."""
    gdb, approached = tmp_path / "gdb", tmp_path / "approached"
    gdb.write_text(
        f'#!/bin/sh\necho "$@" >> {approached}\necho "Couldn\'t write extended state status: Bad address."\n'
    )
    gdb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with running(sys.executable, "idle") as target:
        code, said = executed(str(target.pid), "--method", "debugger", "--force", cwd=tmp_path)
    assert code == 3
    assert "gdb cannot call into processes on this machine: Couldn't write extended state status" in said
    assert f"-p {target.pid} " not in approached.read_text()


def test_no_door_is_open_for_the_cooperative_way(tmp_path: Path) -> None:
    with running(sys.executable, "idle") as target:
        code, said = executed(str(target.pid), "--method", "cooperative", cwd=tmp_path)
    assert code == 3
    assert "left no door open" in said


def test_killed_at_any_moment_of_the_whole_stay_the_target_goes_on_and_is_left(tmp_path: Path) -> None:
    """The command, its injector and its collector, killed together: what is aboard leaves by itself."""
    with running(sys.executable, "ticking") as target:
        before = target.report()
        for milliseconds in (0, 150, 250, 300, 350, 400, 450, 500, 600, 900):
            command = (*ATTACH, str(target.pid), "-o", "x.stall", "--force")
            process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(milliseconds / 1000)
            process.kill()
            process.wait()
            assert target.process.poll() is None
        assert target.settled(before) == before
