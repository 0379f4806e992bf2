"""A stay in a running process, as ``attach`` and ``top`` make it: aboard, watched, left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from stallscope.cli.aboard import library_for
from stallscope.cli.output import counted, say, say_recorded
from stallscope.cli.units import parse_duration_ns
from stallscope.errors import UnreadableInput

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from stallscope.attach.facts import Facts
    from stallscope.cli.live import View
    from stallscope.collect.collector import Collector
    from stallscope.recording.writer import Writer

_W = TypeVar("_W", bound="Writer")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. ``path``: None keeps no recording. ``every_s``: between two redraws; None: no live view."""

    command: str
    path: Path | None
    threshold: str = "10ms"
    duration_s: float = float("inf")
    method: str = "auto"
    children: bool = False
    use_pulse: bool = True
    force: bool = False
    every_s: float | None = None
    as_json: bool = False

    @property
    def threshold_ns(self) -> int:
        """Raises UnreadableInput for what is no duration."""
        return parse_duration_ns(self.threshold, "--threshold")


def stay(facts: Facts, asked: Asked) -> None:
    """Come aboard, watch for the time asked for, and leave. Raises NotObservable with the reason."""
    from stallscope.attach.session import endings_held, leave, watch
    from stallscope.attach.tree import Tree
    from stallscope.collect.collector import Collector
    from stallscope.collect.live import LiveWriter
    from stallscope.recording.writer import Writer

    _require_method(asked.method, force=asked.force)
    family = _family(facts, children=asked.children)
    voice = _Voice()
    with (
        recording(facts, asked, Writer if asked.every_s is None else LiveWriter) as writer,
        endings_held(),
        Collector(writer, pulse=library_for(writer, asked.use_pulse)) as collector,
    ):
        tree = Tree(facts, collector, asked.threshold_ns, asked.method, voice.say, family=family)
        try:
            tree.board()
            with voice.held(asked.every_s is not None), _view(collector, writer, facts, asked) as view:
                why = watch(collector, asked.duration_s, [tree.look, view.tell], tree.is_over)
        finally:
            left = leave(collector)
        _conclude(collector, facts, asked, why, left=left)


class _Voice:
    """Says sentences at once, or keeps them while a view has the terminal."""

    def __init__(self) -> None:
        self._kept: list[str] | None = None

    def say(self, sentence: str) -> None:
        if self._kept is None:
            say(sentence)
        else:
            self._kept.append(sentence)

    @contextmanager
    def held(self, wanted: bool) -> Iterator[None]:
        self._kept = [] if wanted else None
        try:
            yield
        finally:
            kept, self._kept = self._kept or [], None
            for sentence in kept:
                say(sentence)


@contextmanager
def recording(facts: Facts, asked: Asked, kind: type[_W]) -> Iterator[_W]:
    """The writer, of that kind, of the recording, which stays if something was seen, or of one nobody asked for."""
    kept: AbstractContextManager[str] = nullcontext("") if asked.path else TemporaryDirectory(prefix="stallscope-")
    with kept as directory:
        path = asked.path or Path(directory) / "live.stall"
        writer = kind(
            path,
            source="stallscope",
            threshold_ns=asked.threshold_ns,
            started_ns=time.monotonic_ns(),
            started_wall_s=time.time(),
            force=asked.force,
            command=f"{asked.command} {facts.pid} ({facts.name})",
        )
        try:
            yield writer
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _view(collector: Collector, writer: Writer, facts: Facts, asked: Asked) -> AbstractContextManager[View]:
    from stallscope.collect.live import LiveWriter

    if asked.every_s is None or not isinstance(writer, LiveWriter):
        from stallscope.cli.progress import Progress

        return Progress(collector)
    from stallscope.cli.live import view_of

    title = f"process {facts.pid} ({facts.name})"
    return view_of(collector, writer.latest, title, asked.every_s, as_json=asked.as_json)


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


def _conclude(collector: Collector, facts: Facts, asked: Asked, why: str, *, left: bool) -> None:
    if why:
        say(why)
    if not left:
        say(f"process {facts.pid} did not let the agent finish in time; it leaves by itself within 5 s")
    if not collector.iterations and not collector.worst_ns:
        say(
            f"no asyncio loop of process {facts.pid} did anything while it was watched{collector.foreign_loops}, "
            "so there is nothing to analyze; try a longer --duration"
        )
        if asked.path is not None:
            asked.path.unlink(missing_ok=True)
        return
    for sentence in _workers(collector):
        say(sentence)
    if asked.path is not None:
        say_recorded(collector, asked.path, asked.threshold)
    else:
        say(f"{counted(collector, asked.threshold)}{collector.foreign_loops}; -o FILE keeps a recording")


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
