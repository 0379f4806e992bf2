"""A terminal taken over for a while: another screen, and keys without echo; all as before at every way out."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType

_STOP = {signal.SIGTSTP}


def is_there() -> bool:
    """Whether stdout is a terminal that can show a full-screen view."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class Screen:
    """The terminal behind stdout, in full-screen mode. Use as a context manager.

    Ctrl-Z waits, as a blocked signal, until ``heed_stop`` is called: nothing is cut short by it.
    """

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, legacy_windows=False)
        self._before: list[Any] | None = None
        self.has_keys = sys.stdin.isatty()

    def __enter__(self) -> Screen:
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        self._take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._give_back()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, now: a window may be resized at any time."""
        return self._console.width, self._console.height

    def show(self, content: RenderableType) -> bool:
        """Draw over what is there; False where the terminal takes nothing at the moment (Ctrl-S, a dead line)."""
        if not select.select([], [sys.stdout], [], 0)[1]:
            return False
        self._console.update_screen(content)
        return True

    def key(self) -> str:
        """The next key that was pressed; empty when none was."""
        if not self.has_keys or not select.select([sys.stdin], [], [], 0)[0]:
            return ""
        typed = os.read(sys.stdin.fileno(), 1)
        self.has_keys = typed != b""  # the terminal has gone away
        return typed.decode("ascii", "replace")

    def heed_stop(self) -> bool:
        """Stop, if Ctrl-Z was pressed, with the terminal as it was before; whether that has happened."""
        if signal.sigtimedwait(_STOP, 0) is None:
            return False
        self._give_back()
        signal.raise_signal(signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)  # here we stand still, until somebody sends SIGCONT
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        self._take()
        return True

    def _take(self) -> None:
        if self.has_keys:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _give_back(self) -> None:
        with suppress(OSError):  # a terminal that has gone away needs nothing
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)
        if self._before is not None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
