"""The interpreters that each test runs on, and the way to run a program under one, observed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope import pulse
from tests.agent.observing import Observing
from tests.interpreters import Interpreter, every_version, require


@pytest.fixture(params=every_version())
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    """Each CPython that the agent supports; skipped where it is absent."""
    return require(request.param)


@pytest.fixture(params=["alone", "pulse"])
def library(request: pytest.FixtureRequest) -> Path | None:
    """The pulse's library, and None for the agent alone: what a program can notice must be the same."""
    if request.param == "alone":
        return None
    reason = pulse.unusable_reason()
    if reason is not None:
        pytest.skip(reason)
    return pulse.library()


@pytest.fixture
def observing(interpreter: Interpreter, library: Path | None, tmp_path: Path) -> Observing:
    """Runs programs under the interpreter, with the agent aboard and a real collector, or without them."""
    return Observing(interpreter, tmp_path, library)
