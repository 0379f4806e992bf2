"""A terminal that a test can read and type on: a pty with an emulator behind it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte

PATIENCE_S = 30
_OTHER_SCREEN, _FIRST_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
_HIDE_CURSOR, _SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"
_SIZES = ("COLUMNS", "LINES")  # rich believes them rather than the terminal, and pytest-xdist gives them to its workers


class Terminal:
    """A stallscope on a terminal of 80 by 24."""

    def __init__(self, *words: str, cwd: Path, environment: dict[str, str]) -> None:
        self._ours, self._theirs = pty.openpty()
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(80, 24)
        self._before = termios.tcgetattr(self._theirs)
        self._written = b""
        surroundings = {name: value for name, value in os.environ.items() if name not in _SIZES}
        # In a process group of its own, but in our session: one without a parent there could not be stopped.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stallscope", *words], stdin=self._theirs, stdout=self._theirs,
            stderr=subprocess.PIPE, cwd=cwd, preexec_fn=os.setpgrp, text=True,
            env={**surroundings, "TERM": "xterm-256color", **environment},
        )  # fmt: skip

    def resize(self, columns: int, lines: int) -> None:
        """As if the window were dragged."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self._screen.display]

    def until(self, is_so: Callable[[list[str]], Any]) -> list[str]:
        """The screen as soon as it is so."""
        limit = time.monotonic() + PATIENCE_S
        while not is_so(self.lines):
            assert time.monotonic() < limit, "\n".join(self.lines)
            assert self.process.poll() is None, self.process.communicate()[1]
            self.read(0.05)
        return self.lines

    def until_text(self, text: str) -> list[str]:
        """The screen as soon as it shows this."""
        return self.until(lambda lines: text in "\n".join(lines))

    def read(self, wait_s: float = 0.0) -> None:
        """Take what was written."""
        while select.select([self._ours], [], [], wait_s)[0]:
            data = os.read(self._ours, 65536)
            self._written += data
            self._stream.feed(data)
            wait_s = 0.0

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def until_stopped(self) -> None:
        """Wait until the process stands still."""
        limit = time.monotonic() + PATIENCE_S
        while os.waitpid(self.process.pid, os.WUNTRACED | os.WNOHANG) == (0, 0):
            assert time.monotonic() < limit
            self.read(0.02)
        self.read()

    def ended(self) -> str:
        """Its words on stderr, when it has ended."""
        limit = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < limit, "\n".join(self.lines)
            self.read(0.02)
        self.read()
        return self.process.communicate()[1]

    @property
    def is_ours(self) -> bool:
        """Whether our screen is shown, without a cursor, and keys come at once."""
        return self._taken() and not termios.tcgetattr(self._theirs)[3] & (termios.ICANON | termios.ECHO)

    @property
    def is_as_before(self) -> bool:
        """Whether the first screen is back, its cursor, and every setting."""
        shown = self._written.rfind(_SHOW_CURSOR) > self._written.rfind(_HIDE_CURSOR)
        return shown and not self._taken() and termios.tcgetattr(self._theirs) == self._before

    def _taken(self) -> bool:
        return self._written.rfind(_OTHER_SCREEN) > self._written.rfind(_FIRST_SCREEN)

    def close(self) -> None:
        """Hang up."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for descriptor in (self._ours, self._theirs):
            os.close(descriptor)


@contextmanager
def terminal(*words: str, cwd: Path, **environment: str) -> Iterator[Terminal]:
    """A stallscope on a terminal, which is closed at the end."""
    shown = Terminal(*words, cwd=cwd, environment=environment)
    try:
        yield shown
    finally:
        shown.close()
