"""Starts the program that ``run`` observes, and stands aside: its terminal, signals and exit are its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from stallscope import agent
from stallscope.collect.collector import DRAIN_S, Collector
from stallscope.errors import UnreadableInput

_BOOT = Path(agent.__file__).parent / "boot"
# From the terminal these reach the whole foreground group, the program included: we only must not die of them.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def environment(socket_path: str, threshold_ns: int, *, follow: bool) -> dict[str, str]:
    """The program's environment: ours, and what brings the agent aboard its interpreter."""
    settings = {"threshold_ns": threshold_ns, "socket": socket_path, "owner": os.getpid(), "follow": int(follow)}
    paths = [str(_BOOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "STALLSCOPE_RUN": ";".join(f"{name}={value}" for name, value in settings.items()),
        "PYTHONPATH": os.pathsep.join(paths),
    }


def run_observed(command: Sequence[str], collector: Collector, env: dict[str, str]) -> int:
    """Run the command to its end while the collector drains; its return code as ``subprocess`` gives it.

    Raises UnreadableInput when the command cannot be started.
    """
    with _signals_held() as held:
        try:
            process = subprocess.Popen(command, env=env, restore_signals=True)
        except OSError as error:
            raise UnreadableInput(f"cannot start {command[0]}: {error.strerror}; is the name right?") from None
        held.append(process)
        while True:
            try:
                code = process.wait(timeout=DRAIN_S)
                break
            except subprocess.TimeoutExpired:
                collector.drain()
        collector.finish()
        return code


@contextmanager
def _signals_held() -> Iterator[list[subprocess.Popen[bytes]]]:
    """While the program runs, signals are for it: ours are passed on, those of the terminal it has already."""
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    def ignore(number: int, frame: FrameType | None) -> None:
        """A handler and not SIG_IGN, which the program would inherit."""

    handlers = {**dict.fromkeys(_FROM_TERMINAL, ignore), **dict.fromkeys(_PASSED_ON, pass_on)}
    handlers = {n: h for n, h in handlers.items() if signal.getsignal(n) is not signal.SIG_IGN}  # nohup stays nohup
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
