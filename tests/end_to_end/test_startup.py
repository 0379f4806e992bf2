"""How Python starts is what it would be without us: ``sitecustomize`` or none, an old Python, a frozen path."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.end_to_end.observing import RECORDING, Outcome, bare, execute, observed, recorded, write
from tests.interpreters import Version, every_version, name_of, require

LOOP = """
    import asyncio, sys
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    print(sys.path, "sitecustomize" in sys.modules, getattr(sys.modules.get("sitecustomize"), "__file__", None))
"""


def customized(cwd: Path) -> tuple[Outcome, Outcome]:
    """The program, bare and observed, with a PYTHONPATH; stallscope itself is started without that."""
    settings = {**os.environ, "PYTHONPATH": str(cwd / "custom")}
    isolated = (sys.executable, "-I", "-m", "stallscope", "run", "-o", RECORDING, "program.py")
    return bare(cwd, "program.py", env=settings), execute(isolated, cwd, env=settings)


@pytest.mark.parametrize(
    "customization",
    [
        "print('customized')",
        "import sys\nsys.path.append('/from/sitecustomize')\nsys.stderr.write('customized\\n')",
        "raise ValueError('broken on purpose')",
        "import no_such_module_at_all",
        "def broken(:",
        "raise ImportError('sitecustomize', name='sitecustomize')",
        "import asyncio",
        "import os\nos.environ['PYTHONPATH'] = '/elsewhere'",
    ],
    ids=["fine", "changes sys.path", "raises", "imports nothing", "syntax", "denies itself", "asyncio", "env"],
)
def test_a_sitecustomize_of_the_user(tmp_path: Path, customization: str) -> None:
    write(tmp_path, "program.py", LOOP)
    write(tmp_path, "custom/sitecustomize.py", customization)
    plain, watched = customized(tmp_path)
    assert (watched.code, watched.stdout, watched.stderr) == (plain.code, plain.stdout, plain.stderr)
    if plain.code == 0:
        assert len(recorded(tmp_path).loops) == 1


def test_a_usercustomize_of_the_user(tmp_path: Path) -> None:
    write(tmp_path, "program.py", LOOP)
    write(tmp_path, "custom/usercustomize.py", "print('user customized')")
    plain, watched = customized(tmp_path)
    assert (watched.code, watched.stdout, watched.stderr) == (plain.code, plain.stdout, plain.stderr)


@pytest.mark.parametrize("version", every_version())
def test_every_supported_python(tmp_path: Path, version: Version) -> None:
    write(tmp_path, "program.py", LOOP)
    python = require(version).executable
    watched = observed(tmp_path, "--", python, "program.py")
    plain = execute((python, "program.py"), tmp_path)
    assert (watched.code, watched.stdout, watched.stderr) == (plain.code, plain.stdout, plain.stderr)
    recording = recorded(tmp_path)
    assert [process.runtime.rpartition(".")[0] for process in recording.processes] == [f"CPython {name_of(version)}"]
    assert len(recording.loops) == 1


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 7)], ids=["py2.7", "py3.6", "py3.7"])
def test_a_python_too_old_is_unharmed(tmp_path: Path, version: Version) -> None:
    python = old_python(version)
    write(tmp_path, "program.py", "import sys\nprint(sys.path)\nprint(sorted(set(sys.modules) & {'sitecustomize'}))\n")
    watched = observed(tmp_path, "--", python, "program.py")
    plain = execute((python, "program.py"), tmp_path)
    assert plain.code == 0
    assert (watched.code, watched.stdout, watched.stderr) == (3, plain.stdout, plain.stderr)
    assert "older than 3.8" in watched.said
    assert watched.said.count("\n") == 1


def old_python(version: Version) -> str:
    """An executable of a version that is not supported any more; skips the test where there is none."""
    name = name_of(version)
    builds = [str(build) for build in Path("~/.pyenv/versions").expanduser().glob(f"{name}.*/bin/python")]
    found = builds or [path for path in [shutil.which(f"python{name}")] if path]
    if not found or execute((found[0], "-c", ""), Path.cwd()).code:
        pytest.skip(f"no Python {name} in ~/.pyenv/versions or on PATH")
    return found[0]


@pytest.mark.parametrize(
    "options", [("-P",), ("-s",), ("-B",), ("-O",), ("-u",), ("-X", "dev"), ("-W", "error")], ids=" ".join
)
def test_options_of_python(tmp_path: Path, options: tuple[str, ...]) -> None:
    write(tmp_path, "program.py", LOOP)
    plain = bare(tmp_path, *options, "program.py")
    if plain.code:
        pytest.skip(f"this Python has no {options[0]}")
    watched = observed(tmp_path, "--", sys.executable, *options, "program.py")
    assert (watched.code, watched.stdout, watched.stderr) == (plain.code, plain.stdout, plain.stderr)
    assert len(recorded(tmp_path).loops) == 1


def test_interactive_and_from_standard_input(tmp_path: Path) -> None:
    program = b"import asyncio\nasyncio.run(asyncio.sleep(0))\nprint('ran', __name__)\n"
    watched = observed(tmp_path, "--", sys.executable, "-", stdin=program)
    assert (watched.code, watched.stdout) == (0, b"ran __main__\n")
    assert len(recorded(tmp_path).loops) == 1


def test_nothing_is_imported_that_the_program_does_not(tmp_path: Path) -> None:
    """Beside the agent itself and modules that start-up loads anyway or that are built in."""
    write(tmp_path, "program.py", "import sys\nprint(*sys.modules)")
    plain = set(bare(tmp_path, "program.py").stdout.decode().split())
    gained = set(observed(tmp_path, "program.py").stdout.decode().split()) - plain
    ours = {name for name in gained if name.partition(".")[0] == "_stallscope_agent"}
    allowed = {"importlib", "importlib.machinery", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"}
    allowed |= {
        "types",
        "_functools",
        "_struct",
        "_socket",
        "mmap",
        "atexit",
        "_warnings",
        "_imp",
        "_collections",
        "math",
        "_json",
        "gc",
        "fcntl",
    }
    assert ours
    assert gained - ours <= allowed
