"""What the build backend makes, with a compiler and without."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake here (pip fetches it when it builds)"),
    pytest.mark.skipif(sys.platform != "linux", reason="the pulse is built on Linux only"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the backend reads, without what an editable installation built inside."""
    to = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, to)
    built = shutil.ignore_patterns("*.so", "CMakeCache.txt", "CMakeFiles", ".cmake", "build.ninja", "__pycache__")
    shutil.copytree(ROOT / "stallscope", to / "stallscope", ignore=built)
    return to


def _wheel(source: Path, to: Path, environment: dict[str, str]) -> tuple[str, set[str]]:
    program = "import sys, scikit_build_core.build as backend; backend.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", program, str(to)]
    done = subprocess.run(command, cwd=source, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = to.glob("*.whl")
    return wheel.name, set(zipfile.ZipFile(wheel).namelist())


def _data(names: set[str]) -> set[str]:
    return {name for name in names if not name.endswith(".py") and ".dist-info/" not in name}


def _data_of(source: Path) -> set[str]:
    """All in the package that is no Python, and no source of the pulse."""
    files = (path for path in (source / "stallscope").rglob("*") if path.is_file() and path.suffix != ".py")
    return {str(path.relative_to(source)) for path in files if path.parent.name != "pulse"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the pulse knows x86-64 and aarch64 only")
def test_with_a_compiler_one_wheel_serves_every_python(source: Path, tmp_path: Path) -> None:
    name, names = _wheel(source, tmp_path, {})
    assert "-py3-none-linux_" in name
    assert _data(names) == _data_of(source) | {"stallscope/pulse/_pulse.so"}


def test_without_a_working_compiler_the_wheel_has_everything_but_the_library(source: Path, tmp_path: Path) -> None:
    name, names = _wheel(source, tmp_path, {"CC": "/no/such/compiler"})
    assert name.endswith("-py3-none-any.whl")
    assert _data(names) == _data_of(source)
    assert {"stallscope/py.typed", "stallscope/recording/schema.sql"} <= _data(names)
    modules = {str(path.relative_to(source)) for path in (source / "stallscope").rglob("*.py")}
    assert modules <= names


def test_a_compiler_that_refuses_our_code_costs_the_library_only(source: Path, tmp_path: Path) -> None:
    name, _ = _wheel(source, tmp_path, {"CFLAGS": "-include no_such_header.h"})
    assert name.endswith("-py3-none-any.whl")
