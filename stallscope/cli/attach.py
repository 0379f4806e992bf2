"""``stallscope attach``: look into a running Python process, and leave no trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stallscope.cli.aboard import UsePulse, library_for
from stallscope.cli.output import say, say_recorded
from stallscope.cli.units import parse_duration_ns
from stallscope.errors import UnreadableInput

if TYPE_CHECKING:
    from stallscope.attach.facts import Facts
    from stallscope.collect.collector import Collector
    from stallscope.recording.writer import Writer

Output = Annotated[Path | None, typer.Option("-o", "--output", help="The recording to write (NAME-PID-DATE.stall).")]
Duration = Annotated[str, typer.Option(help="How long to watch.")]
Threshold = Annotated[str, typer.Option(help="From which duration on an iteration is a stall.")]
Method = Annotated[str, typer.Option(help="How to get in: auto, cooperative, remote-exec, ptrace, debugger.")]
Children = Annotated[bool, typer.Option("--children", help="Watch its Python children too, those born later as well.")]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing recording; accept the risk of --method debugger.")
]


def attach(
    pid: Annotated[str, typer.Argument(metavar="PID", help="The process to look into.")],
    output: Output = None,
    duration: Duration = "30s",
    threshold: Threshold = "10ms",
    method: Method = "auto",
    children: Children = False,
    use_pulse: UsePulse = True,
    force: Force = False,
) -> None:
    """Look into a running CPython process (3.8 or newer) and record what stalls its event loops.

    The process needs nothing installed. It is held up for about a millisecond, and is as before
    when stallscope leaves: after --duration, at Ctrl-C, or by SIGTERM.
    """
    from stallscope.attach.facts import facts_of
    from stallscope.attach.session import endings_held, leave, watch
    from stallscope.attach.tree import Tree
    from stallscope.cli.progress import Progress
    from stallscope.collect.collector import Collector

    threshold_ns = parse_duration_ns(threshold, "--threshold")
    duration_s = parse_duration_ns(duration, "--duration") / 1e9
    _require_method(method, force=force)
    facts = facts_of(pid)
    family = _family(facts, children=children)
    path = output or Path(f"{facts.name.partition('/')[0]}-{facts.pid}-{time.strftime('%Y%m%d-%H%M%S')}.stall")
    writer = _writer(path, threshold_ns, facts, force=force)
    with endings_held(), Collector(writer, pulse=library_for(writer, use_pulse)) as collector:
        tree = Tree(facts, collector, threshold_ns, method, say, family=family)
        try:
            tree.board()
        except BaseException:
            leave(collector)
            path.unlink(missing_ok=True)
            raise
        view = Progress(collector)
        why = watch(collector, duration_s, [tree.look, view.tell], tree.is_over)
        left = leave(collector)
        view.close()
        _conclude(collector, facts, path, threshold, why, left=left)


def _family(facts: Facts, *, children: bool) -> bool:
    """Whether children are watched too; says what is known of the process that was named."""
    from stallscope.attach.checks import require_attachable
    from stallscope.attach.tree import is_master

    if children and facts.lives() and not facts.is_python():
        say(f"process {facts.pid} ({facts.name}) is not Python; its Python children are watched")
        return True
    require_attachable(facts)
    say(f"process {facts.pid}: {facts.describe()}")
    if not children and is_master(facts):
        say("it is a master, so its workers are watched too")
        return True
    return children


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


def _conclude(collector: Collector, facts: Facts, path: Path, threshold: str, why: str, *, left: bool) -> None:
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
    for sentence in _workers(collector):
        say(sentence)
    say_recorded(collector, path, threshold)


def _workers(collector: Collector) -> Iterator[str]:
    """A line about each process with a loop, where there are several, and one about the only one that stalls."""
    seen = [observed for observed in collector.processes if observed.counted or observed.worst_ns]
    if len(seen) < 2:
        return
    for one in seen:
        worst = f", longest {one.worst_ns / 1e6:.1f} ms" if one.worst_ns else ""
        yield f"process {one.pid}: {one.counted:,} iterations, {one.stalls:,} stall{'s' * (one.stalls != 1)}{worst}"
    stalling = [observed for observed in seen if observed.stalls or observed.worst_ns]
    if len(stalling) == 1:
        yield f"process {stalling[0].pid} alone stalls, the other {len(seen) - 1} do not"
