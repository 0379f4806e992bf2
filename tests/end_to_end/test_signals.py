"""Signals reach the program as they would without us, once, and the recording is complete."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.end_to_end.observing import (
    PATIENCE_S,
    RUN,
    Outcome,
    await_line,
    culprits,
    end,
    outcome,
    recorded,
    start,
    write,
)

WAITS_FOREVER = """
    import asyncio, time

    def stall():
        time.sleep(0.05)

    async def main():
        try:
            await asyncio.sleep(0)
            stall()
            await asyncio.sleep(0)
            print("ready", flush=True)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)  # a second Ctrl-C would break off here
            print("cleaned up", flush=True)

    asyncio.run(main())
"""

COUNTS = """
    import asyncio, os, signal

    async def main():
        loop, count, done = asyncio.get_running_loop(), [], asyncio.Event()
        def arrived(name):
            count.append(name)
            loop.call_later(0.3, done.set)  # time enough for a second one
        for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            loop.add_signal_handler(getattr(signal, name), arrived, name)
        print("ready", os.getpid(), flush=True)
        await done.wait()
        print(*count, flush=True)

    asyncio.run(main())
"""

OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


def press(key: bytes, command: Sequence[str], cwd: Path) -> Outcome:
    """Run the command in a terminal of its own, and press a key once it is ready."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-c", OWN_TERMINAL, *command),
        cwd=cwd,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        await_line(process.stdout)
        os.write(ours, key)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        return outcome(process.returncode, stdout, stderr)
    finally:
        os.close(ours)


def test_ctrl_c_once_stops_the_program(tmp_path: Path) -> None:
    script = str(write(tmp_path, "forever.py", WAITS_FOREVER))
    plain = press(b"\x03", (sys.executable, script), tmp_path)
    watched = press(b"\x03", (*RUN, script), tmp_path)
    assert plain.code == -signal.SIGINT
    assert (watched.code, watched.stdout, watched.stderr) == (plain.code, plain.stdout, plain.stderr)
    assert watched.stdout == b"cleaned up\n"
    recording = recorded(tmp_path)
    assert recording.complete
    assert "stall" in culprits(recording)


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
def test_a_key_of_the_terminal_arrives_once(tmp_path: Path, key: bytes, name: str) -> None:
    watched = press(key, (*RUN, str(write(tmp_path, "count.py", COUNTS))), tmp_path)
    assert (watched.code, watched.stdout.decode()) == (0, f"{name}\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_to_us_is_passed_on_once(tmp_path: Path, name: str) -> None:
    write(tmp_path, "count.py", COUNTS)
    process = start(tmp_path, "count.py")
    await_line(process.stdout)
    process.send_signal(getattr(signal, name))
    watched = end(process)
    assert (watched.code, watched.stdout.decode()) == (0, f"{name}\n")
    assert recorded(tmp_path).complete


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT"])
def test_a_signal_that_ends_the_program_ends_us_alike(tmp_path: Path, name: str) -> None:
    write(tmp_path, "forever.py", WAITS_FOREVER)
    process = start(tmp_path, "forever.py")
    await_line(process.stdout)
    process.send_signal(getattr(signal, name))
    assert end(process).code == -getattr(signal, name)
    assert recorded(tmp_path).complete


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """``nohup stallscope run`` protects the program; a signal meant for it still reaches it."""
    program = """
        import asyncio, os, signal

        async def main():
            ended = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ended.set)
            print("ready", str(signal.getsignal(signal.SIGHUP)), flush=True)
            await ended.wait()

        asyncio.run(main())
    """
    write(tmp_path, "patient.py", program)
    process = start(tmp_path, "patient.py", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert await_line(process.stdout) == str(signal.SIG_IGN).encode()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGUSR1)
    assert end(process).code == 0


def test_stopped_and_continued(tmp_path: Path) -> None:
    """Ctrl-Z and ``fg``: both of us stop and go on, and the program ends as ever."""
    write(tmp_path, "count.py", COUNTS)
    process = start(tmp_path, "count.py", start_new_session=True)
    await_line(process.stdout)
    os.killpg(process.pid, signal.SIGSTOP)
    assert os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT) is not None
    os.killpg(process.pid, signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    assert end(process).stdout == b"SIGTERM\n"
