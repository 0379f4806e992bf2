"""The interpreters that each test runs on, and the way to run a program under one, observed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.observing import Observing
from tests.interpreters import Interpreter, every_version, require


@pytest.fixture(params=every_version())
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    """Each CPython that the agent supports; skipped where it is absent."""
    return require(request.param)


@pytest.fixture
def observing(interpreter: Interpreter, tmp_path: Path) -> Observing:
    """Runs programs under the interpreter, with the agent aboard and a real collector, or without them."""
    return Observing(interpreter, tmp_path)
