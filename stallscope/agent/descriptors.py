"""Descriptors of ours in a process that is not ours: high numbers, out of its way."""

from __future__ import annotations

import fcntl
from os import close, fstat

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from os import stat_result

_HIGH = 900  # below the usual limit of 1024 descriptors


def moved_up(low: int) -> int:
    """The same file under a high number, the low one given up; itself where the limit on descriptors is low.

    That takes milliseconds while the kernel enlarges its table, and a program that closes all its descriptors
    meanwhile may have a file of its own at the low number: that one is not ours to close.
    """
    try:
        before = fstat(low)
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except (OSError, ValueError):
        return low
    if _is_still(low, before):
        close(low)
    return high


def _is_still(descriptor: int, before: stat_result) -> bool:
    try:
        now = fstat(descriptor)
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino)
