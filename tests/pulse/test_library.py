"""Where the built library is, or why there is none."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stallscope import pulse

SOURCES = sorted(Path(pulse.__file__).parent.glob("*.[ch]")) + sorted(Path(pulse.__file__).parent.glob("*.def"))

on_a_known_platform = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64") or shutil.which("cc") is None,
    reason="no pulse can be built here: it needs Linux on x86-64 or aarch64, and a C compiler",
)


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pulse.NO_PULSE_VARIABLE, raising=False)


@on_a_known_platform
def test_where_there_is_a_compiler_there_is_a_library() -> None:
    assert pulse.unusable_reason() is None
    path = pulse.library()
    assert path is not None
    assert path.parent == Path(pulse.__file__).parent
    assert ctypes.CDLL(str(path)).PyInit_pulse_functions_7


@on_a_known_platform
def test_the_library_is_as_new_as_its_sources() -> None:
    built = pulse.library()
    assert built is not None
    newer = [source.name for source in SOURCES if source.stat().st_mtime > built.stat().st_mtime]
    assert not newer, "sources have changed since the library was built: run pip install -e '.[test]' again"


@on_a_known_platform
def test_the_library_exports_nothing_but_its_entries() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm")
    found = subprocess.run(
        [nm, "-D", "--defined-only", str(pulse.library())], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1] for line in found.stdout.splitlines()}
    assert exported - {"pulse_under_loader_lock"} == {"PyInit_pulse_functions_7"}  # the latter where libc is glibc


def test_the_variable_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pulse.NO_PULSE_VARIABLE, "1")
    assert pulse.library() is None
    assert "STALLSCOPE_NO_PULSE is set" in str(pulse.unusable_reason())


def test_an_installation_without_the_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pulse, "LIBRARY", tmp_path / "_pulse.so")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert pulse.library() is None
    assert "without a working C compiler" in str(pulse.unusable_reason())


@pytest.mark.parametrize(("content", "says"), [(b"", "file too short"), (b"no ELF at all" * 99, "invalid ELF header")])
def test_a_library_that_does_not_load_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, says: str
) -> None:
    broken = tmp_path / "_pulse.so"
    broken.write_bytes(content)
    monkeypatch.setattr(pulse, "LIBRARY", broken)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    reason = str(pulse.unusable_reason())
    assert pulse.library() is None
    assert reason.startswith(f"{broken} does not load ({says}")
    assert reason.count(str(broken)) == 1


def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "this is Darwin" in str(pulse.unusable_reason())


def test_another_architecture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "this machine is riscv64" in str(pulse.unusable_reason())


def test_importing_it_loads_nothing_heavy() -> None:
    program = "import sys; before = set(sys.modules); import stallscope.pulse; print(*(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ctypes", "subprocess", "typing", "asyncio", "rich", "typer"} & set(out)
