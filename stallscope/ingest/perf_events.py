"""What the lines of `perf script` have in common: `program tid [cpu] seconds: event: fields`."""

from __future__ import annotations

import re

PREFIX = rb"([^\[\n]{1,50})[ /](-?\d{1,10}) +\[(?:\d{1,5})\] +(\d{1,10}\.\d{6,9}): +"
"""Program (with `/`, its number behind it), thread (-1: exiting) and seconds.

With ` *` before it a mismatch took twice as long.
"""
LOST = re.compile(rb"PERF_RECORD_LOST(?:_SAMPLES)? lost (\d{1,12})")


def at_ns_of(found: re.Match[bytes]) -> int:
    """The time of a line matched by PREFIX."""
    return ns_of(found[3])


def ns_of(seconds: bytes) -> int:
    if seconds[-7] == 46:  # a point before six digits
        return int(seconds.replace(b".", b"")) * 1000
    whole, _, fraction = seconds.partition(b".")
    return int(whole) * 10**9 + int(fraction.ljust(9, b"0"))


def program_of(found: re.Match[bytes]) -> str:
    """The program of a line matched by PREFIX."""
    return re.sub(r" +\d{1,10}$", "", found[1].decode("utf-8", "replace")).strip()
