"""The pulse, built once for all tests here, and the programs that it goes aboard of."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interpreters import Interpreter, every_version, require

_SOURCE = Path(__file__).parents[2] / "stallscope" / "pulse"
_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
_WARNINGS = ["-Wall", "-Wextra", "-Werror"]
PATIENCE_S = 120.0


@pytest.fixture(scope="session")
def compiler() -> str:
    """The C compiler's path."""
    found = shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler here (cc)")
    return found


@pytest.fixture(scope="session")
def pulse(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library."""
    library = tmp_path_factory.mktemp("pulse") / "pulse.so"
    sources = [str(path) for path in sorted(_SOURCE.glob("*.c"))]
    done = subprocess.run([compiler, *_FLAGS, *_WARNINGS, *sources, "-o", str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


@pytest.fixture(params=every_version())
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    """Each CPython that the agent supports; skipped where it is absent."""
    return require(request.param)


@dataclass(frozen=True)
class Programs:
    """Runs a program of ``programs/`` under one interpreter, with the pulse at hand."""

    interpreter: Interpreter
    library: Path

    def run(self, name: str, *arguments: str, bare: bool = False) -> subprocess.CompletedProcess[str]:
        """Its end, which must be a good one; ``bare``: nothing of ours goes aboard."""
        program = Path(__file__).parent / "programs" / f"{name}.py"
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        if not bare:
            env["PULSE"] = str(self.library)
        command = [self.interpreter.executable, str(program), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture
def programs(interpreter: Interpreter, pulse: Path) -> Programs:
    """Runs programs under the interpreter."""
    return Programs(interpreter, pulse)
