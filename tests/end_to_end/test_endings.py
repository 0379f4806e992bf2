"""Whatever dies, and whenever: the program is unharmed by us, and the recording holds what was."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stallscope.analysis.examine import examine
from tests.end_to_end.observing import (
    RECORDING,
    STALLSCOPE,
    Outcome,
    await_line,
    bare,
    culprits,
    end,
    execute,
    observed,
    recorded,
    start,
    write,
)

HANGS = """
    import asyncio, os, sys, time

    def hang():
        before, theirs = os.pipe()
        print("ready", os.getpid(), flush=True)
        os.read(before, 1)

    async def main():
        for _ in range(int(sys.argv[1])):
            await asyncio.sleep(0)
        hang()

    asyncio.run(main())
"""


@pytest.mark.parametrize("turns", [0, 20], ids=["in its first iteration", "later"])
def test_a_hang_that_is_killed(tmp_path: Path, turns: int) -> None:
    write(tmp_path, "hang.py", HANGS)
    process = start(tmp_path, "hang.py", str(turns))
    pid = int(await_line(process.stdout))
    wait_until_hung(pid)
    os.kill(pid, signal.SIGKILL)
    watched = end(process)
    assert watched.code == -signal.SIGKILL
    recording = recorded(tmp_path)
    (stall,) = [stall for stall in recording.stalls if not stall.finished]
    assert recording.complete
    calls = {span.call.name for span in stall.spans if span.call}
    assert calls == {"read"}
    assert stall.spans[-1].stack[0].function == "hang"
    report = execute((*STALLSCOPE, "analyze", RECORDING), tmp_path)
    assert report.code == 0
    assert b"in read(" in report.stdout
    assert b"hang" in report.stdout
    assert b"still in progress" in report.stdout


def wait_until_hung(pid: int) -> None:
    """Wait until the watchdog has looked at the hang: each of its wake-ups is a voluntary switch."""
    begun = switches_of_threads(pid)
    while switches_of_threads(pid) < begun + 100:
        os.sched_yield()


def switches_of_threads(pid: int) -> int:
    """Voluntary context switches of all the process's threads together."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        total += int(fields["voluntary_ctxt_switches"])
    return total


STALLS = """
    import asyncio, os, sys, time

    def stall():
        time.sleep(0.05)

    async def main():
        for _ in range(5):
            await asyncio.sleep(0.01)
            stall()
        await asyncio.sleep(0.05)
        print("ready", os.getpid(), flush=True)
        for line in iter(sys.stdin.readline, ""):
            await asyncio.sleep(0)
            stall()
        await asyncio.sleep(0.05)
        print("unharmed", flush=True)
        leave()

    def leave():
        pass

    asyncio.run(main())
"""


def test_it_leaves_by_the_back_door(tmp_path: Path) -> None:
    write(tmp_path, "leave.py", STALLS.replace("pass", "os._exit(5)"))
    watched = observed(tmp_path, "leave.py")
    assert (watched.code, watched.stderr) == (5, b"")
    recording = recorded(tmp_path)
    assert examine(recording).loops[0].stall_count >= 5
    assert "stall" in culprits(recording)
    assert [process.ending for process in recording.processes] == ["exited"]


def test_we_are_killed(tmp_path: Path) -> None:
    write(tmp_path, "stalls.py", STALLS)
    process = start(tmp_path, "stalls.py")
    await_line(process.stdout)
    await_commit(tmp_path)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    stdout, stderr = process.communicate(b"go on\n" * 3)
    assert (stdout, stderr) == (b"unharmed\n", b"")
    recording = recorded(tmp_path)
    assert not recording.complete
    assert culprits(recording)["stall"].cause == "blocking-syscall"
    report = execute((*STALLSCOPE, "analyze", RECORDING), tmp_path)
    assert (report.code, report.stderr) == (0, b"")


def await_commit(cwd: Path) -> None:
    """Wait until a stall can be read from the recording, which happens once a second."""
    while not recorded(cwd).stalls:
        os.sched_yield()


def test_the_agent_leaves_when_its_collector_is_gone(tmp_path: Path) -> None:
    program = """
        import asyncio

        async def main():
            original = asyncio.events.Handle.__dict__["_run"]
            print("ready", flush=True)
            while asyncio.events.Handle.__dict__["_run"] is original:
                await asyncio.sleep(0.01)
            print("alone", flush=True)

        asyncio.run(main())
    """
    write(tmp_path, "program.py", program)
    process = start(tmp_path, "program.py")
    await_line(process.stdout)
    process.kill()
    process.wait()
    await_line(process.stdout, b"alone")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 192 KiB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Write until nothing more can be written."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(512)):
            pass


def assert_recording_stops(watched: Outcome, path: Path) -> None:
    """The program went on, we said why there is no more, and what there is can be read."""
    assert (watched.code, watched.stdout, watched.stderr) == (0, b"unharmed\n", b"")
    assert "recording stopped" in watched.said
    assert "not disturbed" in watched.said
    report = execute((*STALLSCOPE, "analyze", str(path)), path.parent)
    assert report.code in (0, 4), report
    assert b"Traceback" not in report.stderr


def test_the_disk_is_full(tiny_disk: Path) -> None:
    write(tiny_disk.parent, "stalls.py", STALLS)
    command = (*STALLSCOPE, "run", "-o", "disk/x.stall", "stalls.py")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, cwd=tiny_disk.parent, **pipes)  # type: ignore[call-overload]
    await_line(process.stdout)
    fill(tiny_disk)
    assert_recording_stops(end(process, b"go on\n" * 50), tiny_disk / "x.stall")


def test_the_file_may_not_grow(tmp_path: Path) -> None:
    """A limit on the size of files is a full disk too."""
    write(tmp_path, "stalls.py", STALLS)
    process = start(tmp_path, "stalls.py")
    await_line(process.stdout)
    size = max(path.stat().st_size for path in tmp_path.glob("x.stall*"))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
    assert_recording_stops(end(process, b"go on\n" * 50), tmp_path / RECORDING)


def test_the_disk_was_full_before(tiny_disk: Path) -> None:
    write(tiny_disk.parent, "program.py", "print('ran')")
    fill(tiny_disk)
    refused = execute((*STALLSCOPE, "run", "-o", "disk/x.stall", "program.py"), tiny_disk.parent)
    assert (refused.code, refused.stdout, refused.stderr) == (2, b"", b"")
    assert "disk is full" in refused.said
    assert os.listdir(tiny_disk) == ["filler"]


def test_the_recording_is_named_after_the_program(tmp_path: Path) -> None:
    write(tmp_path, "shop/front.py", "import asyncio\nasyncio.run(asyncio.sleep(0))\n")
    watched = execute((*STALLSCOPE, "run", "shop/front.py"), tmp_path)
    (made,) = tmp_path.glob("*.stall")
    assert made.name.startswith("front-")
    assert f"stallscope analyze {made.name}" in watched.said
    assert made.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 2  # it, and shop/


def test_an_existing_recording_is_not_replaced_unasked(tmp_path: Path) -> None:
    write(tmp_path, "program.py", "import asyncio\nprint('ran')\nasyncio.run(asyncio.sleep(0))\n")
    (tmp_path / RECORDING).write_text("precious")
    refused = observed(tmp_path, "program.py")
    assert (refused.code, refused.stdout) == (2, b"")
    assert "--force" in refused.said
    assert (tmp_path / RECORDING).read_text() == "precious"
    assert observed(tmp_path, "--force", "program.py").stdout == b"ran\n"
    assert recorded(tmp_path).complete


@pytest.mark.parametrize(
    ("place", "why"),
    [("script.py/x.stall", "not a directory"), ("nowhere/x.stall", "does not exist"), ("/proc/x.stall", "/proc")],
)
def test_a_place_that_cannot_be_written_to(tmp_path: Path, place: str, why: str) -> None:
    write(tmp_path, "script.py", "print('ran')")
    refused = execute((*STALLSCOPE, "run", "-o", place, "script.py"), tmp_path)
    assert (refused.code, refused.stdout, refused.stderr) == (2, b"", b"")
    assert why in refused.said
    assert refused.said.count("\n") == 1


def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("file permissions do not bind root")
    write(tmp_path, "script.py", "print('ran')")
    (tmp_path / "locked").mkdir(mode=0o555)
    refused = execute((*STALLSCOPE, "run", "-o", "locked/x.stall", "script.py"), tmp_path)
    assert (refused.code, refused.stdout) == (2, b"")
    assert "permission denied" in refused.said


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Neither a socket in the temporary directory nor an empty recording of a program without a loop."""
    write(tmp_path, "program.py", "print('no loop')")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    watched = observed(tmp_path, "program.py", env={**os.environ, "TMPDIR": str(temporary)})
    assert (watched.code, watched.stdout) == (0, b"no loop\n")
    assert "no asyncio loop" in watched.said
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / RECORDING).exists()
    assert bare(tmp_path, "program.py").stdout == watched.stdout


def test_limits_are_the_programs_own(tmp_path: Path) -> None:
    """We lower our core limit before we die of its signal; it must not be the program's."""
    write(tmp_path, "limits.py", "import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))")
    assert observed(tmp_path, "limits.py").stdout.decode().strip() == str(resource.getrlimit(resource.RLIMIT_CORE))
