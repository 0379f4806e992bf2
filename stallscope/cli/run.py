"""``stallscope run``: start a program with the agent aboard, and record what its loops do."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from stallscope.cli.aboard import UsePulse, library_for
from stallscope.cli.output import say, say_recorded
from stallscope.cli.units import parse_duration_ns

if TYPE_CHECKING:
    from stallscope.collect.collector import Collector
    from stallscope.collect.program import Program

_DASHES = "stallscope.run.dashes"


class RunCommand(TyperCommand):
    """Everything from the program's name on is the program's; remembers whether ``--`` stood before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as usual, and note the ``--`` that click swallows."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        program = ctx.params.get("program") or []
        before = len(given) - len(program) - 1
        ctx.meta[_DASHES] = before >= 0 and given[before] == "--"
        return rest


REGISTRATION = {"cls": RunCommand, "context_settings": {"allow_interspersed_args": False}}
"""How the command is registered: everything after its first argument is passed on."""

Output = Annotated[Path | None, typer.Option("-o", "--output", help="The recording to write (NAME-DATE.stall).")]
Threshold = Annotated[str, typer.Option(help="From which duration on an iteration is a stall.")]
# A flag, and the module is the first word: so what follows it is the program's, as with python -m.
Module = Annotated[bool, typer.Option("-m", help="The first word is a MODULE to run, as python -m does.")]
Follow = Annotated[bool, typer.Option("--follow-children/--no-follow-children", help="Observe Python children too.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing recording.")]
Words = Annotated[list[str] | None, typer.Argument(metavar="SCRIPT|-m MODULE|-- COMMAND [ARGS]...", show_default=False)]


def run(
    ctx: typer.Context,
    program: Words = None,
    output: Output = None,
    threshold: Threshold = "10ms",
    module: Module = False,
    follow: Follow = True,
    use_pulse: UsePulse = True,
    force: Force = False,
) -> None:
    """Run a Python program and record what stalls its event loops.

    SCRIPT and -m MODULE run under the Python that runs stallscope; for another one:
    stallscope run -- /path/to/python app.py. The program keeps its terminal, signals,
    arguments and exit code.
    """
    from stallscope.collect.collector import Collector
    from stallscope.collect.launch import environment, run_observed
    from stallscope.collect.program import command_of, module_of, script_of
    from stallscope.errors import UnreadableInput
    from stallscope.recording.claim import release
    from stallscope.recording.writer import Writer

    threshold_ns = parse_duration_ns(threshold, "--threshold")
    words = program or []
    target = module_of(words) if module else command_of(words) if ctx.meta[_DASHES] else script_of(words)
    target.require_observable(follow=follow)
    path = output or Path(f"{target.name}-{time.strftime('%Y%m%d-%H%M%S')}.stall")
    writer = Writer(
        path,
        source="stallscope",
        threshold_ns=threshold_ns,
        started_ns=time.monotonic_ns(),
        started_wall_s=time.time(),
        force=force,
        command=" ".join(target.argv),
    )
    if not target.is_python:
        say(f"{target.argv[0]} is not a Python program; only its Python children are seen (the rest needs the pulse)")
    pulse = library_for(writer, use_pulse)
    with Collector(writer, pulse=pulse) as collector:
        settings = environment(collector.socket_path, threshold_ns, follow=follow, pulse=pulse)
        try:
            code = run_observed(target.argv, collector, settings)
        except UnreadableInput:  # it could not be started
            release(path)
            raise
        code = _conclude(collector, target, path, threshold, code)
    _leave(code)


def _conclude(collector: Collector, target: Program, path: Path, threshold: str, code: int) -> int:
    """The closing line; the exit code to leave with (the program's, unless nothing could be observed)."""
    if collector.stopped:
        say(f"{collector.stopped}; the program was not disturbed, and what was recorded before is kept in {path}")
        return code
    if not collector.iterations and not collector.worst_ns:  # a program may hang in its very first iteration
        path.unlink(missing_ok=True)
        if code:  # the program failed before any loop ran: its own error is all there is to say
            return code
        say(_nothing_seen(collector, target))
        return 0 if collector.processes else 3
    say_recorded(collector, path, threshold)
    return code


def _nothing_seen(collector: Collector, target: Program) -> str:
    if collector.processes:
        return f"no asyncio loop ran in {target.name}, so there is nothing to analyze{collector.foreign_loops}"
    if not target.is_python:
        return f"{target.argv[0]} could not be observed: it is not Python and started none; this needs the pulse"
    return (
        f"{target.name} ran, but the agent could not come aboard: Python is older than 3.8, or was started with "
        "-I, -E or -S, or with an environment of its own; start it without them"
    )


def _leave(code: int) -> NoReturn:
    """Leave as the program left: with its exit code, or by the signal that ended it (without a second core)."""
    sys.stdout.flush()
    if code < 0:
        limits: Any = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code if code >= 0 else 128 - code)
