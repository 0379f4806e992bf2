"""A program under ``stallscope run`` is what it would be without: what it is given, and what it gives back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from tests.end_to_end.observing import PATIENCE_S, RUN, Outcome, await_line, bare, observed, outcome, recorded, write

LOOK_AROUND = """
    import gc, json, os, resource, signal, sys, threading
    import __main__

    def descriptors():
        # All but the one that belongs to the agent's shared memory.
        links = {number: os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        return [number for number, link in links.items() if "memfd:stallscope" not in link and "/proc/" not in link]

    facts = {
        "argv": sys.argv, "orig_argv": getattr(sys, "orig_argv", None), "path": sys.path, "flags": list(sys.flags),
        "name": __name__, "file": __main__.__file__, "package": __package__,
        "spec": __spec__ and __spec__.name, "cwd": os.getcwd(), "stdin": sys.stdin.read() if sys.stdin else None,
        "descriptors": sorted(descriptors()), "group": os.getpgrp(), "session": os.getsid(0),
        "handlers": {number: str(signal.getsignal(number)) for number in sorted(signal.valid_signals())},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "umask": os.umask(0),
        "limits": [resource.getrlimit(number) for number in range(10)], "nice": os.nice(0),
        "threads": [thread.name for thread in threading.enumerate()], "gc": [gc.isenabled(), gc.get_threshold()],
        "trace": str(sys.gettrace()), "hook": sys.excepthook is sys.__excepthook__,
        "sitecustomize": "sitecustomize" in sys.modules, "bytecode": sys.dont_write_bytecode,
    }
    print(json.dumps(facts, indent=1))
"""


def assert_same(watched: Outcome, plain: Outcome) -> None:
    """Return code and bytes, but for our own sentences."""
    assert (watched.code, watched.stdout, watched.stderr) == (plain.code, plain.stdout, plain.stderr)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The same program as script, module, package, directory and zip."""
    write(tmp_path, "look.py", LOOK_AROUND)
    write(tmp_path, "a dir/look it.py", LOOK_AROUND)
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/__main__.py", LOOK_AROUND)
    write(tmp_path, "package/inner/__init__.py", "")
    write(tmp_path, "package/inner/tool.py", LOOK_AROUND)
    write(tmp_path, "folder/__main__.py", LOOK_AROUND)
    zipapp.create_archive(tmp_path / "folder", tmp_path / "app.pyz")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["look.py", "two words", "-o", "--threshold", "0", "--", "", "ünï", "--help"],
        ["a dir/look it.py", "--", "-m", "x"],
        ["-m", "look", "-m", "--no-follow-children", "--"],
        ["-m", "package", "--flag"],
        ["-m", "package.inner.tool", "--"],
        ["folder", "x"],
        ["app.pyz", "x"],
    ],
    ids=" ".join,
)
def test_it_finds_the_same_world(programs: Path, words: list[str]) -> None:
    plain = bare(programs, *words, stdin=b"some\nlines")
    assert plain.code == 0
    assert_same(observed(programs, *words, stdin=b"some\nlines"), plain)


def test_it_finds_the_same_world_as_a_command(programs: Path) -> None:
    watched = observed(programs, "--", sys.executable, "-X", "dev", "look.py", "-o", "--", "x y")
    assert_same(watched, bare(programs, "-X", "dev", "look.py", "-o", "--", "x y"))


def test_its_standard_input_may_be_at_its_end(programs: Path) -> None:
    assert_same(observed(programs, "look.py"), bare(programs, "look.py"))


def test_its_standard_input_may_be_closed(tmp_path: Path) -> None:
    """Then it is /dev/null for the program: SQLite fills the gap, so that no recording becomes anybody's stdin."""
    write(tmp_path, "reads.py", "import sys\nprint(sys.stdin.read() if sys.stdin else '')")

    def run(*command: str) -> Outcome:
        closing = ("sh", "-c", 'exec "$@" <&-', "sh", *command)
        done = subprocess.run(closing, cwd=tmp_path, capture_output=True, timeout=PATIENCE_S)
        return outcome(done.returncode, done.stdout, done.stderr)

    assert_same(run(*RUN, "reads.py"), run(sys.executable, "reads.py"))


@pytest.mark.parametrize(
    ("option", "added"),
    [("--follow-children", {"PYTHONPATH", "STALLSCOPE_RUN"}), ("--no-follow-children", set())],
)
def test_its_environment_gains_only_what_children_need(tmp_path: Path, option: str, added: set[str]) -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    write(tmp_path, "environment.py", script)
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    watched = json.loads(observed(tmp_path, option, "environment.py", env=settings).stdout)
    plain = json.loads(bare(tmp_path, "environment.py", env=settings).stdout)
    assert {name for name in watched if watched[name] != plain.get(name)} == added
    assert plain.keys() <= watched.keys()


def test_a_python_path_of_its_own_is_kept(programs: Path) -> None:
    settings = {**os.environ, "PYTHONPATH": f"{programs / 'folder'}{os.pathsep}{programs / 'nowhere'}{os.pathsep}"}
    plain = bare(programs, "look.py", env=settings)
    assert str(programs / "nowhere") in json.loads(plain.stdout)["path"]
    assert_same(observed(programs, "look.py", env=settings), plain)
    assert_same(observed(programs, "--force", "--no-follow-children", "look.py", env=settings), plain)


@pytest.mark.parametrize("leaving", ["0", "1", "3", "77", "300", "-1", "'a sentence'", "None", "[]"])
def test_its_exit_code_is_ours(tmp_path: Path, leaving: str) -> None:
    write(tmp_path, "leave.py", f"import sys\nsys.exit({leaving})\n")
    assert_same(observed(tmp_path, "leave.py"), bare(tmp_path, "leave.py"))


def test_its_exit_code_is_ours_after_a_loop_too(tmp_path: Path) -> None:
    write(tmp_path, "leave.py", "import asyncio, sys\nasyncio.run(asyncio.sleep(0))\nsys.exit(77)\n")
    watched = observed(tmp_path, "leave.py")
    assert_same(watched, bare(tmp_path, "leave.py"))
    assert "iterations" in watched.said


def test_its_bytes_are_not_touched(tmp_path: Path) -> None:
    program = """
        import sys
        everything = bytes(range(256)) * 1000
        sys.stdout.buffer.write(everything)
        sys.stderr.buffer.write(sys.stdin.buffer.read() + b"\\n")
    """
    write(tmp_path, "bytes.py", program)
    binary = bytes(range(256)) * 1000
    assert_same(observed(tmp_path, "bytes.py", stdin=binary), bare(tmp_path, "bytes.py", stdin=binary))


def test_a_traceback_is_what_it_would_be(tmp_path: Path) -> None:
    program = """
        import asyncio

        async def fail():
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0)
            raise ValueError("on purpose")

        asyncio.run(fail())
    """
    write(tmp_path, "fail.py", program)
    plain = bare(tmp_path, "fail.py")
    assert b"ZeroDivisionError" in plain.stderr
    assert b"ValueError: on purpose" in plain.stderr
    assert_same(observed(tmp_path, "fail.py"), plain)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGHUP", "SIGUSR1", "SIGPIPE", "SIGINT"])
def test_a_death_by_signal_is_ours(tmp_path: Path, name: str) -> None:
    program = f"""
        import asyncio, os, signal, sys, time
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        async def die():
            await asyncio.sleep(0)
            print("last words", flush=True)
            os.kill(os.getpid(), signal.{name})
        asyncio.run(die())
    """
    write(tmp_path, "die.py", program)
    plain = bare(tmp_path, "die.py")
    assert plain.code == -getattr(signal, name)
    watched = observed(tmp_path, "die.py")
    assert (watched.code, watched.stdout) == (plain.code, plain.stdout)
    assert recorded(tmp_path).complete


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    program = """
        import signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        while True:
            print("a line")
    """
    write(tmp_path, "chatter.py", program)

    def head(*command: str) -> int:
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
            await_line(process.stdout, b"a line")
            assert process.stdout is not None
            process.stdout.close()
            return process.wait(PATIENCE_S)

    assert head(*RUN, "chatter.py") == head(sys.executable, "chatter.py") == -signal.SIGPIPE
