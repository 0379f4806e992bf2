"""The sample server, met in the middle of its load, shows the same culprits as from its first iteration on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stallscope.analysis.examine import examine
from stallscope.recording.reader import read

SERVER = str(Path(__file__).parents[2] / "samples" / "file_server.py")
STALLSCOPE = (sys.executable, "-m", "stallscope")
BLOCKING = {"openat": "open_file", "read": "read_block", "write": "AccessLog.write_page"}


def culprits(recording: Path) -> set[tuple[str, str, int, str]]:
    """The three that stall most: call, file, line, function."""
    first = examine(read(recording)).culprits[:3]
    return {
        (one.syscall, one.location.file, one.location.line, one.location.function)
        for one in first
        if one.syscall is not None and one.location is not None
    }


def test_the_same_culprits_as_under_run(tmp_path: Path) -> None:
    subprocess.run((*STALLSCOPE, "run", "-o", "run.stall", SERVER, "--demo", "3"), cwd=tmp_path, check=True, timeout=90)
    with subprocess.Popen((sys.executable, SERVER, "--demo", "8"), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready")
        attach = (*STALLSCOPE, "attach", str(server.pid), "--duration", "4s", "-o", "attached.stall")
        subprocess.run(attach, cwd=tmp_path, check=True, timeout=90)
        server.communicate()
    found = culprits(tmp_path / "attached.stall")
    assert found == culprits(tmp_path / "run.stall")
    assert {call: function for call, _, _, function in found} == BLOCKING
