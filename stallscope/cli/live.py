"""The live views of a collector: full-screen where there is a terminal, lines elsewhere."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from stallscope.analysis.glance import Glance, Glances, LiveNumbers, Pace, pace_of
from stallscope.cli.output import emit
from stallscope.cli.screen import Screen, is_there
from stallscope.collect.live import Latest, Totals
from stallscope.report import live

if TYPE_CHECKING:
    from stallscope.collect.collector import Collector

WINDOW_S = 5.0
"""What a loop did in so many seconds is its pace."""
MINUTE_S = 60.0
LOOK_SHARE = 0.005
"""Of our time, for looking at modes and culprits: with hundreds of stalls that is every two or three seconds."""


_Span = tuple[float, Mapping[int, Totals]]
"""Seconds until now, and the totals of then."""


class View(Protocol):
    """Its ``tell`` is called with the elapsed seconds, ten times a second."""

    def tell(self, elapsed_s: float) -> None: ...


class Numbers:
    """The present numbers of a collector whose writer keeps the latest."""

    def __init__(self, collector: Collector, latest: Latest, title: str) -> None:
        self._collector = collector
        self._latest = latest
        self._title = title
        self._glances = Glances()
        self._glance = Glance(latest.threshold_ns)
        self._next_look_s = 0.0
        self._past: deque[tuple[float, Mapping[int, Totals]]] = deque()

    def begin(self, elapsed_s: float) -> None:
        """Paces are counted from here on, when it is called for the first time: not what was counted before."""
        if not self._past:
            self._past.append((elapsed_s, dict(self._latest.totals)))

    def now(self, elapsed_s: float) -> LiveNumbers:
        """All that a view shows; ``begin`` must have been called."""
        running = {stall.loop_id: stall for stall in self._collector.running()}
        return LiveNumbers(
            title=self._title,
            elapsed_s=elapsed_s,
            iterations=self._collector.iterations,
            stalls=self._collector.stalls,
            worst_ns=self._collector.worst_ns,
            glance=self._looked(elapsed_s),
            paces=self._paces(elapsed_s, {number: stall.duration_ns for number, stall in running.items()}),
            running=running,
        )

    def _looked(self, elapsed_s: float) -> Glance:
        """A new look at modes and culprits when we can afford one."""
        if elapsed_s >= self._next_look_s:
            begun = time.thread_time()
            self._glance = self._glances.look(self._latest.recording(time.monotonic_ns()))
            self._next_look_s = elapsed_s + (time.thread_time() - begun) / LOOK_SHARE
        return self._glance

    def _paces(self, elapsed_s: float, ages_ns: Mapping[int, int]) -> dict[int, Pace]:
        while len(self._past) > 1 and self._past[1][0] <= elapsed_s - MINUTE_S:
            self._past.popleft()
        of_window = next((past for past in self._past if past[0] >= elapsed_s - WINDOW_S), self._past[-1])
        recent, minute = ((max(elapsed_s - at_s, 1e-3), then) for at_s, then in (of_window, self._past[0]))
        now = dict(self._latest.totals)
        self._past.append((elapsed_s, now))
        return {number: _pace(number, now, recent, minute, ages_ns.get(number, 0)) for number in self._latest.loops}


def _pace(number: int, now: Mapping[int, Totals], recent: _Span, minute: _Span, age_ns: int) -> Pace:
    nothing = Totals()
    total, then, before = now.get(number, nothing), recent[1].get(number, nothing), minute[1].get(number, nothing)
    return pace_of(
        recent[0],
        total.iterations - then.iterations,
        total.busy_ns - then.busy_ns,
        stalls=total.stalls - before.stalls,
        stalls_s=minute[0],
        age_ns=age_ns,
    )


class FullScreen:
    """Redraws a screen at intervals, and heeds its keys."""

    def __init__(self, numbers: Numbers, screen: Screen, every_s: float) -> None:
        self._numbers = numbers
        self._screen = screen
        self._every_s = every_s
        self._next_s = 0.0
        self._choices = live.Choices(keys=screen.has_keys)
        self._shown: LiveNumbers | None = None

    def tell(self, elapsed_s: float) -> None:
        """Redraw when it is time, or a key was pressed."""
        self._numbers.begin(elapsed_s)
        changed = self._screen.heed_stop()
        while key := self._screen.key():
            self._heed(key)
            changed = True
        if changed or elapsed_s >= self._next_s:
            self._next_s = elapsed_s + self._every_s
            if self._shown is None or not self._choices.paused:
                self._shown = self._numbers.now(elapsed_s)
            width, height = self._screen.size
            self._screen.show(live.draw(self._shown, self._choices, width=width, height=height))

    def _heed(self, key: str) -> None:
        chosen = self._choices
        if key in "qQ":
            os.kill(os.getpid(), signal.SIGINT)  # it waits, blocked, for whoever watches: the way out is one
        elif key in "pP ":
            self._choices = replace(chosen, paused=not chosen.paused)
        elif key in "sS":
            following = live.ORDERS.index(chosen.order) + 1
            self._choices = replace(chosen, order=live.ORDERS[following % len(live.ORDERS)])
        elif key in "nN\t":
            self._choices = replace(chosen, loop=chosen.loop + 1)


class Lines:
    """Prints a line at intervals, of words or of JSON."""

    def __init__(self, numbers: Numbers, every_s: float, *, as_json: bool) -> None:
        self._numbers = numbers
        self._every_s = every_s
        self._next_s = every_s
        self._as_json = as_json

    def tell(self, elapsed_s: float) -> None:
        """Print when it is time."""
        self._numbers.begin(elapsed_s)
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + self._every_s
            numbers = self._numbers.now(elapsed_s)
            emit(json.dumps(live.as_json(numbers)) if self._as_json else live.line(numbers))


@contextmanager
def view_of(collector: Collector, latest: Latest, title: str, every_s: float, *, as_json: bool) -> Iterator[View]:
    """The view that suits stdout; what was there before is there again at the end."""
    numbers = Numbers(collector, latest, title)
    if as_json or not is_there():
        yield Lines(numbers, every_s, as_json=as_json)
        return
    with Screen() as screen:
        yield FullScreen(numbers, screen, every_s)
