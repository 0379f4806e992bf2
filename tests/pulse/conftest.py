"""Compilers, for the tests that build the pulse's sources themselves."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def compiler() -> str:
    """The C compiler's path."""
    found = shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler here (cc)")
    return found
