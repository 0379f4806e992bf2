"""Stacks for people: the frames of libraries folded, and calls of a function by itself counted."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator
from itertools import groupby

from stallscope.analysis.findings import Location
from stallscope.analysis.sites import bare, owner, package_of, within_handler
from stallscope.recording.nouns import Frame, Stack
from stallscope.report.words import count, place


def chain(stack: Stack) -> str:
    """The way from the handler inward: ``handle:90 > walk:12 x7 > load:20 > [requests, urllib3]``."""
    steps: list[str] = []
    for mine, frames in _owned(stack):
        told = [f"{bare(frame.function)}:{frame.line}" for frame in frames] if mine else [_libraries(frames)]
        steps += [step if number == 1 else f"{step} x{number}" for step, number in _runs(told)]
    return " > ".join(steps)


def lines(stack: Stack, location: Location | None) -> Iterator[str]:
    """A line for each frame of the user's code, innermost first, marked at the location; one for each run of others."""
    for mine, frames in reversed(_owned(stack)):
        if mine:
            yield from (
                told if n == 1 else f"{told} (x{n})" for told, n in _runs(_line(f, location) for f in frames[::-1])
            )
        else:
            innermost = f"{place(frames[-1].file, frames[-1].line)} {bare(frames[-1].function)}"
            yield f"    ({count(len(frames), 'frame')} of {_libraries(frames)[1:-1]}, down to {innermost})"


def source_line(location: Location) -> str:
    """The text of a location's line, where its file can be read here."""
    return linecache.getline(location.file, location.line).strip()


def _owned(stack: Stack) -> list[tuple[bool, list[Frame]]]:
    """The handler's own frames, outermost first and without asyncio's, in runs of the user's (True) and of others."""
    inward = [frame for frame in reversed(within_handler(stack)) if owner(frame.file) not in ("asyncio", "agent")]
    users = {"user"} if any(owner(frame.file) == "user" for frame in inward) else {"generated"}  # python -c
    return [(mine, list(run)) for mine, run in groupby(inward, key=lambda frame: owner(frame.file) in users)]


def _libraries(frames: Iterable[Frame]) -> str:
    return f"[{', '.join(dict.fromkeys(_library(frame.file) for frame in frames))}]"


def _library(file: str) -> str:
    """The package of a file, or its module's name in the standard library."""
    package = package_of(file)
    if package is not None:
        return package
    module = file.rpartition("/")[2].removesuffix(".py")
    return file.split("/")[-2] if module == "__init__" else module


def _runs(steps: Iterable[str]) -> Iterator[tuple[str, int]]:
    return ((step, len(list(same))) for step, same in groupby(steps))


def _line(frame: Frame, location: Location | None) -> str:
    here = location is not None and (frame.file, frame.line) == (location.file, location.line)
    source = linecache.getline(frame.file, frame.line).strip()
    told = f"{place(frame.file, frame.line)} {frame.function}"
    return f"  {'>' if here else ' '} {told}{f':  {source}' if source else ''}"
