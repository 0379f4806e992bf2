"""How reports write times, shares and places, the same in each of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stallscope.analysis.ledger import Cause
from stallscope.analysis.modes import Modality

_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))


def duration(ns: float) -> str:
    """For example ``34 s``, ``50.1 ms``, ``4 µs``; at least two digits, at most four."""
    for size, unit in _UNITS:
        if ns >= size * 0.9995:
            value = ns / size
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{float(f'{value:.3g}'):g} {unit}"
    return f"{ns:.0f} ns"


def percent(share: float) -> str:
    """For example ``94.1 %``, ``0.35 %``, ``100 %``; never ``100 %`` for less, never ``0 %`` for more."""
    value = 100 * share
    if 99.9 <= value < 100:
        return "99.9 %"
    if 0 < value < 0.01:
        return "<0.01 %"
    return f"{value:.0f} %" if value in (0, 100) else f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def count(number: int, noun: str) -> str:
    """For example ``1 stall``, ``3,799 iterations``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


MEANING: Mapping[Cause, str] = {
    "blocking-syscall": "waits in a system call",
    "lock-wait": "waits for a lock that another thread holds",
    "gil-wait": "waits while other threads run Python",
    "gc": "collects garbage",
    "python-cpu": "computes in Python",
    "native-cpu": "computes in C",
    "import": "imports a module",
    "descheduled": "is ready, but gets no CPU",
    "suspended": "is stopped from outside",
    "unexplained": "not known",
}
"""What the loop's thread does, in words for people."""


def short_path(path: str, cwd: str | None = None) -> str:
    """A path relative to the working directory when it lies below, else with its last folder only."""
    if not path.startswith("/"):
        return path
    whole = Path(path)
    base = Path(cwd) if cwd is not None else Path.cwd()
    if whole.is_relative_to(base):
        return str(whole.relative_to(base))
    return str(Path(*whole.parts[-2:])) if len(whole.parts) > 3 else path


def place(file: str, line: int, cwd: str | None = None) -> str:
    """``file:line``."""
    return f"{short_path(file, cwd)}:{line}" if line else short_path(file, cwd)


def fitted(text: str, room: int) -> str:
    """Text cut in the middle: the end of a path tells more than its start."""
    if len(text) <= room:
        return text
    tail = max(1, (room - 1) * 2 // 3)
    return f"{text[: room - 1 - tail]}…{text[-tail:]}"


def verdict_of(found: Modality) -> str:
    """What the shape of the histogram says, in one sentence."""
    stall_modes = [mode for mode in found.modes if mode.stall_mode]
    if found.shape == "too-few":
        return "too few iterations to say"
    if not stall_modes:
        return "unimodal: no stall mode"
    parts = [
        f"{count(mode.iterations, 'iteration')} ({percent(mode.share)}) near {duration(mode.peak_ns)}"
        for mode in stall_modes
    ]
    valley = next(
        duration(valley.threshold_ns)
        for valley, slower in zip(found.valleys, found.modes[1:], strict=True)
        if slower.stall_mode
    )
    return f"{found.shape}: a stall mode of {', another of '.join(parts)}, above a valley at {valley}"
