"""Every process that cannot be attached to is refused in one sentence that says why and what to do."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stallscope.attach.checks import require_attachable
from stallscope.attach.facts import facts_of
from stallscope.attach.ptrace import Thread
from stallscope.errors import NotObservable, UnreadableInput

WAITING = "print('ready', flush=True); input()"
NOBODY = 65534
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make processes of other users and namespaces")


@contextmanager
def program(*command: str, ready: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """A program that waits on stdin, once it has said that it is ready."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert not ready or process.stdout.readline().strip() == b"ready"
        yield process
    finally:
        process.kill()
        process.communicate()


def refusal(pid: int | str) -> str:
    with pytest.raises(NotObservable) as refused:
        require_attachable(facts_of(str(pid)))
    return str(refused.value)


def refusal_as(uid: int, pid: int) -> str:
    """What an unprivileged user is told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            require_attachable(facts_of(str(pid)))
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("text", ["", "abc", "-1", "0", "1.5", "99999999999", " 12", "4194304"])
def test_no_process_number(text: str) -> None:
    with pytest.raises(UnreadableInput, match="no process number"):
        facts_of(text)


def test_itself() -> None:
    with pytest.raises(UnreadableInput, match="stallscope itself"):
        facts_of(str(os.getpid()))


def test_no_such_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert "there is no process" in refusal(process.pid)


def test_a_zombie() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert "zombie" in refusal(process.pid)
    process.wait()


def test_a_stopped_process() -> None:
    with program(sys.executable, "-c", WAITING) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert f"kill -CONT {process.pid}" in refusal(process.pid)


def test_a_traced_process_names_the_tracer() -> None:
    with program(sys.executable, "-c", WAITING) as process, Thread(process.pid) as thread:
        thread.stop()
        assert f"traced by process {os.getpid()}" in refusal(process.pid)


def test_a_thread_names_its_process() -> None:
    code = "import threading; threading.Thread(target=input).start(); print('ready', flush=True)"
    with program(sys.executable, "-c", code) as process:
        tid = next(int(name) for name in os.listdir(f"/proc/{process.pid}/task") if int(name) != process.pid)
        assert f"attach to {process.pid}" in refusal(tid)


def test_another_program() -> None:
    with program(shutil.which("cat") or "cat", ready=False) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
        assert "not Python" in refusal(process.pid)


@pytest.mark.parametrize("version", ["2.7.18", "3.6.15", "3.7.16"])
def test_an_old_python(version: str) -> None:
    executable = os.path.expanduser(f"~/.pyenv/versions/{version}/bin/python")
    if not os.path.exists(executable):
        pytest.skip(f"there is no {executable}")
    with program(executable, "-c", "import sys; print('ready'); sys.stdout.flush(); sys.stdin.read()") as process:
        assert "attach needs CPython 3.8 or newer" in refusal(process.pid)


@is_root
def test_another_users_process() -> None:
    with program(sys.executable, "-c", WAITING) as process:
        assert "NotObservable" in refusal_as(NOBODY, process.pid)
        assert "is of user root, and you are nobody" in refusal_as(NOBODY, process.pid)


@is_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare")
def test_another_mount_namespace() -> None:
    unshare = shutil.which("unshare") or ""
    with program(unshare, "--mount", sys.executable, "-c", WAITING) as process:
        assert "another container, namespace or root" in refusal(process.pid)


@is_root
def test_a_process_that_is_not_dumpable() -> None:
    def become_nobody() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        become_nobody()
        os.write(writing, b"ready")
        signal.pause()
    assert os.read(reading, 5) == b"ready"
    try:
        assert "not dumpable" in refusal_as(NOBODY, child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_fitting_process_is_not_refused() -> None:
    with program(sys.executable, "-c", WAITING) as process:
        require_attachable(facts_of(str(process.pid)))
