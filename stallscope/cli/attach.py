"""``stallscope attach``: look into a running Python process, and leave no trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from stallscope.cli.aboard import UsePulse
from stallscope.cli.units import parse_duration_ns
from stallscope.errors import UnreadableInput

Pid = Annotated[str, typer.Argument(metavar="PID", help="The process to look into.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="The recording to write (NAME-PID-DATE.stall).")]
Duration = Annotated[str, typer.Option(help="How long to watch.")]
Threshold = Annotated[str, typer.Option(help="From which duration on an iteration is a stall.")]
Method = Annotated[str, typer.Option(help="How to get in: auto, cooperative, remote-exec, ptrace, debugger.")]
Children = Annotated[bool, typer.Option("--children", help="Watch its Python children too, those born later as well.")]
Interval = Annotated[str, typer.Option(help="Between two redraws of the live view, or two of its lines.")]
AsJson = Annotated[bool, typer.Option("--json", help="A line of JSON at each interval instead of the live view.")]
Live = Annotated[bool, typer.Option("--live", help="Show what happens: a full screen, or lines where there is none.")]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing recording; accept the risk of --method debugger.")
]


def attach(
    pid: Pid,
    output: Output = None,
    duration: Duration = "30s",
    threshold: Threshold = "10ms",
    method: Method = "auto",
    children: Children = False,
    live: Live = False,
    interval: Interval = "500ms",
    as_json: AsJson = False,
    use_pulse: UsePulse = True,
    force: Force = False,
) -> None:
    """Look into a running CPython process (3.8 or newer) and record what stalls its event loops.

    The process needs nothing installed. It is held up for about a millisecond, and is as before
    when stallscope leaves: after --duration, at Ctrl-C, or by SIGTERM.
    """
    from stallscope.attach.facts import facts_of
    from stallscope.cli.stay import Asked, stay

    if as_json and not live:
        raise UnreadableInput("--json is a form of the live view: add --live, or use stallscope analyze --json later")
    duration_s = parse_duration_ns(duration, "--duration") / 1e9
    every_s = parse_duration_ns(interval, "--interval") / 1e9
    facts = facts_of(pid)
    named = f"{facts.name.partition('/')[0]}-{facts.pid}-{time.strftime('%Y%m%d-%H%M%S')}.stall"
    path, shown_s = output or Path(named), every_s if live else None
    stay(facts, Asked("attach", path, threshold, duration_s, method, children, use_pulse, force, shown_s, as_json))
