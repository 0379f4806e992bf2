"""Every process that cannot be attached to is refused in one sentence that says why and what to do."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stallscope.attach import checks, methods, session
from stallscope.attach.checks import require_attachable
from stallscope.attach.facts import facts_of
from stallscope.attach.ptrace import Thread
from stallscope.errors import NotObservable, UnreadableInput
from tests.attach.programs import WAITING, is_root, program, status_of_child
from tests.attach.targets import PATIENCE_S, stay

NOBODY = 65534


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
        said = refusal_as(NOBODY, process.pid)
        assert said.startswith("Refused: ")
        assert "is of user root, and you are nobody: run stallscope as root" in said


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


def test_a_pypy_by_its_name(tmp_path: Path) -> None:
    pypy = tmp_path / "pypy3.10"
    shutil.copy(shutil.which("cat") or "cat", pypy)
    with program(str(pypy), ready=False) as process:
        wait_for_exec(process.pid, pypy)
        assert f"is PyPy ({pypy})" in refusal(process.pid)


def wait_for_exec(pid: int, path: Path) -> None:
    limit = time.monotonic() + PATIENCE_S
    while os.readlink(f"/proc/{pid}/exe") != str(path) and time.monotonic() < limit:
        time.sleep(0.001)


PAUSE_32 = """
.globl _start
_start:
    mov $4, %eax
    mov $1, %ebx
    mov $text, %ecx
    mov $6, %edx
    int $0x80
    mov $29, %eax
    int $0x80
    jmp _start
text: .ascii "ready\\n"
"""


def test_a_32_bit_program(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("ld")):
        pytest.skip("there are no binutils")
    (tmp_path / "code.s").write_text(PAUSE_32)
    subprocess.run(["as", "--32", "-o", "code.o", "code.s"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-o", "small", "code.o"], cwd=tmp_path, check=True)
    try:
        with program(str(tmp_path / "small")) as process:
            assert "is a 32-bit program" in refusal(process.pid)
    except (OSError, AssertionError) as error:
        if isinstance(error, OSError):
            pytest.skip(f"this kernel runs no 32-bit programs: {error}")
        raise


def test_a_static_and_stripped_python(tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("there is no C compiler")
    code = '#include <unistd.h>\nint main(void) { write(1, "ready\\n", 6); pause(); }'
    command = ["gcc", "-static", "-s", "-x", "c", "-o", "python3.11", "-"]
    if subprocess.run(command, input=code, text=True, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("nothing can be linked statically here")
    with program(str(tmp_path / "python3.11")) as process:
        assert "no symbols (static and stripped)" in refusal(process.pid)


VFORK = """
import ctypes, os
libc = ctypes.CDLL(None)
print('ready', flush=True)
if libc.vfork() == 0:
    while True:
        libc.pause()
"""


@pytest.mark.usefixtures("ptrace")
def test_a_process_in_an_uninterruptible_wait_is_told_of_and_goes_on(tmp_path: Path) -> None:
    """The kernel lets a parent wait like that for the child of a vfork."""
    with program(sys.executable, "-c", VFORK) as process:
        limit = time.monotonic() + PATIENCE_S
        while status_of_child(process.pid) != "D" and time.monotonic() < limit:
            time.sleep(0.001)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        try:
            require_attachable(facts_of(str(process.pid)))  # such a wait ends at once, mostly
            with pytest.raises(NotObservable, match="uninterruptible wait"), stay(process, tmp_path / "x.stall"):
                pass
            assert status_of_child(process.pid) == "D"
            assert facts_of(str(process.pid)).status["TracerPid"] == "0"
        finally:
            os.kill(int(children[0]), signal.SIGKILL)


@is_root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="there is no setpriv (util-linux)")
@pytest.mark.parametrize(
    ("target_options", "sentence"),
    [(("--reuid", str(NOBODY), "--clear-groups"), "root without CAP_SYS_PTRACE"), ((), "has more capabilities")],
    ids=["of another user", "with more capabilities"],
)
def test_root_in_a_container_without_the_capability(target_options: tuple[str, ...], sentence: str) -> None:
    less = ("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace")
    with program("setpriv", *(target_options or ("--no-new-privs",)), "/usr/bin/python3", "-c", WAITING) as process:
        attach = (*less, sys.executable, "-m", "stallscope", "attach", str(process.pid))
        done = subprocess.run(attach, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert sentence in done.stderr
    assert "SYS_PTRACE" in done.stderr


@pytest.mark.usefixtures("ptrace")
def test_a_process_that_is_killed_while_the_agent_comes_aboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with program(sys.executable, "-c", WAITING) as process:

        def killed(*arguments: object) -> methods.Arrival:
            process.kill()
            process.wait()
            return methods.Arrival("ptrace", 0, 0, lambda: None)

        monkeypatch.setattr(session, "bring", killed)
        ended = pytest.raises(NotObservable, match="ended while the agent was coming aboard")
        with ended, stay(process, tmp_path / "x.stall"):
            pass


@pytest.mark.parametrize(
    ("scope", "words"),
    [(1, "sysctl kernel.yama.ptrace_scope=0"), (2, "run stallscope as root"), (3, "without a reboot")],
)
def test_what_yama_forbids(scope: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no Yama: its file stands in."""
    monkeypatch.setattr(checks, "ptrace_scope", lambda: scope)
    monkeypatch.setattr(checks, "may_trace_any", lambda: False)
    with program(sys.executable, "-c", WAITING) as process:
        said = refusal(process.pid)
    assert f"ptrace_scope is {scope}" in said
    assert words in said


def test_an_interpreter_newer_than_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "NEWEST", (3, 7))
    with program(sys.executable, "-c", WAITING) as process:
        assert "upgrade stallscope" in refusal(process.pid)
