"""Starts the program that ``run`` observes, and stands aside: its terminal, signals and exit are its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stallscope import agent
from stallscope.collect.collector import DRAIN_S, Collector
from stallscope.errors import UnreadableInput

_BOOT = Path(agent.__file__).parent / "boot"
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_SENT_BY_KERNEL = 0x80  # SI_KERNEL, <asm-generic/siginfo.h>


def environment(socket_path: str, threshold_ns: int, *, follow: bool, pulse: Path | None = None) -> dict[str, str]:
    """The program's environment: ours, and what brings the agent, and the pulse's library, aboard its interpreter."""
    settings: dict[str, object] = {"threshold_ns": threshold_ns, "socket": socket_path, "follow": int(follow)}
    settings["owner"] = os.getpid()
    if pulse is not None:
        settings["pulse"] = str(pulse)
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
    with _signals_held() as (held, before):
        process = _started(command, env, before)
        while process.poll() is None:
            arrived = signal.sigtimedwait(held, DRAIN_S)
            if arrived is not None and not _program_has_it(arrived):
                process.send_signal(arrived.si_signo)
            collector.drain()
        collector.finish()
        return process.returncode


def _started(command: Sequence[str], env: dict[str, str], mask: set[int]) -> subprocess.Popen[bytes]:
    def with_signals_as_before() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        return subprocess.Popen(command, env=env, preexec_fn=with_signals_as_before)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnreadableInput(f"cannot start {command[0]}: {reason}; is it the right file?") from None


def _program_has_it(arrived: signal.struct_siginfo) -> bool:
    """Our own SIGCHLD, or a key of the terminal: that went to the whole foreground group."""
    return arrived.si_signo == signal.SIGCHLD or (
        arrived.si_signo in _FROM_TERMINAL and arrived.si_code == _SENT_BY_KERNEL
    )


@contextmanager
def _signals_held() -> Iterator[tuple[set[int], set[int]]]:
    """While the program runs, signals are for it: they wait for us to pass them on.

    Yields the signals that are held, and the mask from before. Handlers would do too, but cannot
    tell Ctrl-C (the program has it already) from ``kill -INT`` (it has not).
    """
    wanted = (*_FROM_TERMINAL, *_PASSED_ON)
    held = {int(number) for number in wanted if signal.getsignal(number) is not signal.SIG_IGN}  # nohup stays nohup
    held.add(signal.SIGCHLD)
    before = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, held)}
    try:
        yield held, before
    finally:
        while signal.sigtimedwait(held, 0):  # what came too late for the program is not for us either
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
