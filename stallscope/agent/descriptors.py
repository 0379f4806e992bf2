"""Descriptors of ours in a process that is not ours: high numbers, out of its way."""

from __future__ import annotations

import fcntl
from os import close

_HIGH = 900  # below the usual limit of 1024 descriptors


def moved_up(low: int) -> int:
    """The same file under a high number, the low one given up; itself where the limit on descriptors is low."""
    try:
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except (OSError, ValueError):
        return low
    close(low)
    return high
