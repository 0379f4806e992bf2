"""The pulse: the shared library that times iterations and blocking calls exactly, from inside the target.

Everything else here is C. This module only tells where the built library is, or why there is none to use; then
stallscope measures with the agent alone, and the recording's fidelity says so.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path

NO_PULSE_VARIABLE = "STALLSCOPE_NO_PULSE"

LIBRARY = Path(__file__).parent / "_pulse.so"
"""Where it is if this installation has one."""
_MACHINES = ("x86_64", "aarch64")


def library() -> Path | None:
    """The library's path, for the target to load; None where there is none to use (see `unusable_reason`)."""
    return None if unusable_reason() else LIBRARY


def unusable_reason() -> str | None:
    """Why this installation has no pulse to use, in one clause, with what to do about it; None: it has.

    It speaks of this machine and this installation; a target with another C library or another architecture finds
    that out as it loads the library.
    """
    error = absent_reason()
    if error is None and (loading := _loading_error(LIBRARY)):
        error = f"{LIBRARY} does not load ({loading}); reinstall stallscope on this machine"
    return error


def absent_reason() -> str | None:
    """The same, but whether the library loads is left to the process that will: to try takes ``ctypes``."""
    if os.environ.get(NO_PULSE_VARIABLE):
        return f"{NO_PULSE_VARIABLE} is set in the environment; unset it"
    if sys.platform != "linux":
        return f"the pulse knows Linux only, and this is {platform.system()}"
    if platform.machine() not in _MACHINES:
        return f"the pulse knows {' and '.join(_MACHINES)} only, and this machine is {platform.machine()}"
    if not LIBRARY.is_file():
        return "this installation was made without a working C compiler; install gcc, then reinstall stallscope"
    return None


@cache
def _loading_error(path: Path) -> str | None:
    import ctypes  # here, since most commands never ask

    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return str(error).removeprefix(f"{path}: ")
    return None
