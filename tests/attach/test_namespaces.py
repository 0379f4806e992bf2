"""The agent reaches a process in whatever namespace, root directory and file system it lives: no path is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stallscope.attach import payload
from stallscope.attach.facts import Facts
from stallscope.attach.payload import modules_for
from tests.attach.programs import TICKING, apart, is_root, program
from tests.attach.targets import Target, assert_seen, running, stay
from tests.interpreters import every_version, require

pytestmark = pytest.mark.usefixtures("ptrace")


@is_root
@pytest.mark.parametrize(
    "options",
    [
        ("--mount",),
        ("--mount", "--pid", "--fork", "--mount-proc"),
        ("--net", "--ipc", "--uts"),
        ("--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--net"),
    ],
    ids=["mount", "pid", "net", "user"],
)
def test_other_namespaces(options: tuple[str, ...], tmp_path: Path) -> None:
    with apart(*options) as pid:
        facts = Facts(pid)
        assert facts.other_namespaces()
        with stay(facts, tmp_path / "x.stall") as (collector, _):
            assert collector.processes[0].pid == pid
            assert_seen(collector)


@is_root
def test_a_read_only_root_directory_without_anything_of_ours(tmp_path: Path) -> None:
    script = 'mount --bind -o ro "$1" "$1" && mount -t tmpfs -o ro none /tmp && exec "$2" -c "$3"'
    with apart("--mount", code=TICKING) as pid:
        assert Facts(pid).other_namespaces() == ["mnt"]
    python = os.path.realpath(sys.executable)  # a virtual environment may lie below /tmp, which goes out of sight
    if python.startswith("/tmp/"):
        pytest.skip("this Python lies below /tmp, which the program is to see empty")
    command = ("unshare", "--mount", "sh", "-c", script, "sh", str(Path.home()), python, TICKING)
    with program(*command, stderr=subprocess.PIPE) as process:
        assert not os.listdir(f"/proc/{process.pid}/root/tmp")
        with stay(Facts(process.pid), tmp_path / "x.stall") as (collector, _):
            assert_seen(collector)


@is_root
def test_a_process_sees_a_second_owner_that_it_cannot_see_the_process_of(tmp_path: Path) -> None:
    from stallscope.errors import NotObservable

    with apart("--mount", "--pid", "--fork", "--mount-proc") as pid:
        with (
            stay(Facts(pid), tmp_path / "x.stall"),
            pytest.raises(NotObservable, match="outside its container"),
            stay(Facts(pid), tmp_path / "y.stall"),
        ):
            pass
        with stay(Facts(pid), tmp_path / "x.stall") as (collector, _):
            assert_seen(collector)


@pytest.mark.parametrize("version", every_version())
def test_sources_do_where_nothing_compiles_for_the_target(
    version: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload, "_interpreter", lambda facts: ([], {}))
    with running(require(version).executable, "ticking") as target:
        before = target.report()
        modules = modules_for(Facts(target.pid))
        assert all(isinstance(code, list) for _, code in modules.values())
        with stay(target, tmp_path / "x.stall", modules) as (collector, _):
            assert_seen(collector)
        assert target.settled(before) == before


def test_a_target_without_memfd_has_an_unlinked_file_instead(tmp_path: Path) -> None:
    target = Target(sys.executable, "ticking", "import os; del os.memfd_create; import posix; del posix.memfd_create")
    try:
        before = target.report()
        with stay(target, tmp_path / "x.stall") as (collector, _):
            assert_seen(collector)
        assert target.settled(before) == before
    finally:
        assert target.end() == ""
