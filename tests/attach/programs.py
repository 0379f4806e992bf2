"""Programs to look at, started in namespaces and states of every kind; each says ``ready`` and waits on stdin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WAITING = "print('ready', flush=True); input()"
TICKING = """
import asyncio, time
async def main():
    print('ready', flush=True)
    while True:
        await asyncio.sleep(0.005)
        time.sleep(0.02)
asyncio.run(main())
"""
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make processes of other users and namespaces")


@contextmanager
def program(*command: str, ready: bool = True, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said that it is ready; it is killed at the end."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    try:
        assert process.stdout is not None
        assert not ready or process.stdout.readline().strip() == b"ready"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def apart(*options: str, code: str = TICKING, python: str = sys.executable) -> Iterator[int]:
    """A Python in namespaces of its own (options of ``unshare``); the number that it has here."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare (util-linux)")
    tried = subprocess.run([unshare, *options, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"unshare {' '.join(options)} does not work here: {tried.stderr.strip()}")
    with program(unshare, *options, python, "-c", code, stderr=subprocess.DEVNULL) as process:
        pid = innermost(process.pid)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)  # unshare --fork would leave it behind


def innermost(pid: int) -> int:
    """The last of a chain of only children."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def status_of_child(child: int) -> str:
    """Its state, one letter."""
    return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
