"""``stallscope attach``: look into a running Python process, and leave no trace."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stallscope.cli.output import say, say_recorded
from stallscope.cli.units import parse_duration_ns
from stallscope.errors import UnreadableInput

if TYPE_CHECKING:
    from stallscope.attach.facts import Facts
    from stallscope.collect.collector import Collector
    from stallscope.recording.writer import Writer

_PROGRESS_S = 1.0
_NO_LOOP_S = 5.0

Output = Annotated[Path | None, typer.Option("-o", "--output", help="The recording to write (NAME-PID-DATE.stall).")]
Duration = Annotated[str, typer.Option(help="How long to watch.")]
Threshold = Annotated[str, typer.Option(help="From which duration on an iteration is a stall.")]
Method = Annotated[str, typer.Option(help="How to get in: auto, cooperative, remote-exec, ptrace, debugger.")]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing recording; accept the risk of --method debugger.")
]


def attach(
    pid: Annotated[str, typer.Argument(metavar="PID", help="The process to look into.")],
    output: Output = None,
    duration: Duration = "30s",
    threshold: Threshold = "10ms",
    method: Method = "auto",
    force: Force = False,
) -> None:
    """Look into a running CPython process (3.8 or newer) and record what stalls its event loops.

    The process needs nothing installed. It is held up for about a millisecond, and is as before
    when stallscope leaves: after --duration, at Ctrl-C, or by SIGTERM.
    """
    from stallscope.attach.checks import require_attachable
    from stallscope.attach.facts import facts_of
    from stallscope.attach.session import come_aboard, endings_held, leave, watch
    from stallscope.collect.collector import Collector

    threshold_ns = parse_duration_ns(threshold, "--threshold")
    duration_s = parse_duration_ns(duration, "--duration") / 1e9
    facts = facts_of(pid)
    _require_method(method, force=force)
    require_attachable(facts)
    say(f"process {facts.pid}: {facts.describe()}")
    path = output or Path(f"{facts.name.partition('/')[0]}-{facts.pid}-{time.strftime('%Y%m%d-%H%M%S')}.stall")
    with endings_held(), Collector(_writer(path, threshold_ns, facts, force=force)) as collector:
        try:
            boarded = come_aboard(facts, collector, threshold_ns, method=method)
        except BaseException:
            leave(collector)
            path.unlink(missing_ok=True)
            raise
        say(
            f"aboard process {facts.pid} ({facts.name}) by {boarded.method}; "
            f"it was paused for {boarded.pause_ns / 1e6:.1f} ms at most"
        )
        why = watch(collector, duration_s, _Progress(collector).tell)
        left = leave(collector)
        _conclude(collector, facts, path, threshold, why, left=left)


def _require_method(method: str, *, force: bool) -> None:
    from stallscope.attach.methods import DEBUGGER, METHODS

    if method not in METHODS:
        raise UnreadableInput(f"--method {method!r} is unknown: give {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    if method == DEBUGGER and not force:
        raise UnreadableInput(
            "--method debugger stops the program for up to a second, and gdb has killed some that allocate all the "
            "time: add --force if you accept that, or use --method auto"
        )


def _writer(path: Path, threshold_ns: int, facts: Facts, *, force: bool) -> Writer:
    from stallscope.recording.writer import Writer

    return Writer(
        path,
        source="stallscope",
        threshold_ns=threshold_ns,
        started_ns=time.monotonic_ns(),
        started_wall_s=time.time(),
        force=force,
        command=f"attach {facts.pid} ({facts.name})",
    )


class _Progress:
    """A line on stderr: rewritten once a second on a terminal, printed every ten seconds elsewhere."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._terminal = sys.stderr.isatty()
        self._every_s = _PROGRESS_S if self._terminal else 10 * _PROGRESS_S
        self._next_s = self._every_s
        self._no_loop_said = False

    def tell(self, elapsed_s: float) -> None:
        """Print when it is time."""
        seen = self._collector
        if elapsed_s >= _NO_LOOP_S and not seen.iterations and not seen.worst_ns and not self._no_loop_said:
            self._no_loop_said = True
            say(f"no iteration of an asyncio loop so far{seen.foreign_loops}; watching on")
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + self._every_s
            line = (
                f"stallscope: {elapsed_s:.0f} s, {seen.iterations:,} iterations, {seen.stalls:,} stalls, "
                f"worst {seen.worst_ns / 1e6:.1f} ms"
            )
            print(
                f"\r{line}\x1b[K" if self._terminal else line,
                end="" if self._terminal else "\n",
                file=sys.stderr,
                flush=True,
            )


def _conclude(collector: Collector, facts: Facts, path: Path, threshold: str, why: str, *, left: bool) -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if why:
        say(why)
    if not left:
        say(f"process {facts.pid} did not let the agent finish in time; it leaves by itself within 5 s")
    if not collector.iterations and not collector.worst_ns:
        say(
            f"no asyncio loop of process {facts.pid} did anything while it was watched{collector.foreign_loops}, "
            "so there is nothing to analyze; try a longer --duration"
        )
        path.unlink(missing_ok=True)
        return
    say_recorded(collector, path, threshold)
