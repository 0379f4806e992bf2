"""``stallscope top``: the live view of a running Python process, or of what another stallscope collects there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stallscope.cli.aboard import UsePulse
from stallscope.cli.attach import AsJson, Children, Force, Interval, Method, Pid, Threshold
from stallscope.cli.output import counted, say
from stallscope.cli.units import parse_duration_ns
from stallscope.errors import UnreadableInput

if TYPE_CHECKING:
    from stallscope.attach.facts import Facts
    from stallscope.cli.stay import Asked
    from stallscope.collect.joined import JoinedReader

Output = Annotated[Path | None, typer.Option("-o", "--output", help="Keep a recording in this file.")]
Duration = Annotated[str | None, typer.Option(help="How long to watch; without it until you quit.")]


def top(
    pid: Pid,
    output: Output = None,
    duration: Duration = None,
    threshold: Threshold = "10ms",
    method: Method = "auto",
    children: Children = False,
    interval: Interval = "500ms",
    as_json: AsJson = False,
    use_pulse: UsePulse = True,
    force: Force = False,
) -> None:
    """Show live what stalls the event loops of a running CPython process; the same as attach --live.

    No recording is kept unless -o says where. Where another stallscope observes the process already, this one
    looks on: it reads the same memory and changes nothing.
    """
    from stallscope.attach.facts import facts_of
    from stallscope.cli.stay import Asked, stay

    duration_s = parse_duration_ns(duration, "--duration") / 1e9 if duration else float("inf")
    every_s = parse_duration_ns(interval, "--interval") / 1e9
    asked = Asked("top", output, threshold, duration_s, method, children, use_pulse, force, every_s, as_json)
    facts = facts_of(pid)
    reader = _collected_already(facts)
    if reader is None:
        stay(facts, asked)
    else:
        _look_on(facts, reader, asked)


def _collected_already(facts: Facts) -> JoinedReader | None:
    from stallscope.collect.joined import joined

    try:
        return joined(facts.pid, facts.inner_pid)
    except OSError:  # the checks that attach makes know why
        return None


def _look_on(facts: Facts, reader: JoinedReader, asked: Asked) -> None:
    from stallscope.attach.facts import observer
    from stallscope.attach.session import endings_held, watch
    from stallscope.cli.live import view_of
    from stallscope.cli.stay import recording
    from stallscope.collect.collector import Collector
    from stallscope.collect.live import LiveWriter

    whom = observer(reader.owner_pid)
    if asked.path is not None:
        raise UnreadableInput(f"process {facts.pid} is recorded already, by {whom}: leave out -o to look on")
    say(f"process {facts.pid} ({facts.name}) is observed already, by {whom}: looking on, read-only")
    greeting = {"pid": facts.pid, "parent": facts.parent, "runtime": ""}
    title = f"process {facts.pid} ({facts.name}), read-only beside {whom}"
    with recording(facts, asked, LiveWriter) as writer, endings_held(), Collector(writer) as collector:
        collector.look_on(reader, greeting)
        with view_of(collector, writer.latest, title, asked.every_s or 1.0, as_json=asked.as_json) as view:
            why = watch(collector, asked.duration_s, [view.tell], lambda: not collector.is_anyone_left)
        collector.finish()
    if why:
        say(why)
    say(f"{counted(collector, asked.threshold)} since the other one came aboard")
