"""The pulse driven by plain threads in C, without Python: each scenario of ``native/`` under each toolchain."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from tests.pulse.toolchains import SCENARIOS, SKIPPED, TOOLCHAINS, Toolchain, build

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the pulse knows Linux on x86-64 and aarch64 only",
)


@pytest.fixture(scope="session", params=TOOLCHAINS, ids=lambda toolchain: toolchain.name)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Toolchain, Path]:
    """A toolchain, and the program that it built."""
    toolchain: Toolchain = request.param
    missing = toolchain.missing()
    if missing is not None:
        pytest.skip(missing)
    return toolchain, build(toolchain, tmp_path_factory.mktemp(toolchain.name))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(built: tuple[Toolchain, Path], scenario: str) -> None:
    toolchain, program = built
    if scenario in toolchain.beyond:
        pytest.skip(f"{toolchain.runner[0]} cannot stand it")
    preloaded = {"LD_PRELOAD": str(program.parent / "preload.so")} if scenario == "preloaded" else {}
    done = toolchain.run(program, scenario, preloaded)
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
