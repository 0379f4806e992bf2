"""Tests that trace a process are skipped where that is not permitted, or not written yet for this machine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from stallscope.attach.ptrace import Thread


@pytest.fixture(scope="session")
def ptrace() -> None:
    """Skips where a child of ours cannot be traced."""
    if platform.machine() != "x86_64":
        pytest.skip(f"attach is not written yet for {platform.machine()}")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with Thread(process.pid) as thread:
            thread.stop()
    except OSError as error:
        pytest.skip(f"ptrace is not permitted here: {error}")
    finally:
        process.kill()
        process.communicate()
