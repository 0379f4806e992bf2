"""The view of the present: numbers in, a rich renderable out, as high and wide as the screen; or one line of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from stallscope.analysis.findings import Culprit
from stallscope.analysis.glance import LiveNumbers, LoopGlance
from stallscope.recording.nouns import Stack, Stall
from stallscope.report import culprit_table, histogram
from stallscope.report.words import count, duration, fitted, percent, place, short_path

ORDERS = ("time", "stalls", "longest")
"""What culprits can be sorted by."""
STACK_SHOWN = 4
LOOPS_SHOWN = 3
LEAST_CULPRITS = 2
"""So many stay on a low screen; the histogram goes first."""
_LIGHT = {"time": "share", "stalls": "stalls", "longest": "longest"}


@dataclass(frozen=True, slots=True)
class Choices:
    """What the person at the keys has chosen."""

    order: str = ORDERS[0]
    loop: int = 0
    """Which loop is shown, counted from the worst."""
    paused: bool = False
    keys: bool = True
    """Whether there are keys at all."""


def draw(numbers: LiveNumbers, choices: Choices, *, width: int, height: int) -> Group:
    """The whole screen: no more lines than `height`, none longer than `width`."""
    loops = numbers.glance.loops
    head = list(_header(numbers, choices))
    body: list[Text] = []
    if loops:
        at = choices.loop % len(loops)
        head += _loop(numbers, loops[at], width)
        head += _others(numbers, [*loops[at + 1 :], *loops[:at]])
        room = height - len(head) - 1
        body = _fitting(list(_bars(loops[at])), list(_culprits(numbers, choices.order, width)), room)
    else:
        head.append(Text("no iteration of an event loop so far; watching on", style="yellow"))
    lines = [*head, *body][: height - 1]
    lines += [Text()] * (height - 1 - len(lines))
    return Group(*(_cut(line, width) for line in (*lines, _keys(choices))))


def line(numbers: LiveNumbers) -> str:
    """The same in one line of words."""
    busy = max((pace.utilization for pace in numbers.paces.values()), default=None)
    minute = sum(pace.stalls_a_minute for pace in numbers.paces.values())
    parts = [
        f"{numbers.elapsed_s:.1f} s",
        f"{numbers.iterations:,} iterations",
        f"{numbers.stalls:,} stalls ({minute:.0f}/min)",
        f"worst {duration(numbers.worst_ns)}" if numbers.worst_ns else "",
        f"busy {percent(busy)}" if busy is not None else "",
        _shape(numbers.glance.loops),
        _overdue_line(numbers),
    ]
    culprit = next(iter(numbers.glance.culprits), None)
    if culprit is not None:
        where = f" at {place(culprit.location.file, culprit.location.line)}" if culprit.location else ""
        parts.append(f"top: {percent(culprit.share)} {culprit_table.call_of(culprit) or culprit.cause}{where}")
    return "; ".join(filter(None, parts))


def as_json(numbers: LiveNumbers) -> dict[str, Any]:
    """The same for programs, one object a redraw (schema 1)."""
    return {
        "schema": 1,
        "elapsed_s": round(numbers.elapsed_s, 3),
        "iterations": numbers.iterations,
        "stalls": numbers.stalls,
        "worst_ms": numbers.worst_ns / 1e6,
        "threshold_ms": numbers.glance.threshold_ns / 1e6,
        "loops": [_loop_json(numbers, one) for one in numbers.glance.loops],
        "culprits": [_culprit_json(one) for one in numbers.glance.culprits[:LOOPS_SHOWN]],
    }


def _header(numbers: LiveNumbers, choices: Choices) -> Iterator[Text]:
    yield Text(numbers.title, style="bold")
    told = f"{duration(numbers.elapsed_s * 1e9)}, {count(numbers.iterations, 'iteration')}, "
    told += f"{count(numbers.stalls, 'stall')} of {duration(numbers.glance.threshold_ns)} or more"
    told += f", worst {duration(numbers.worst_ns)}" if numbers.worst_ns else ""
    yield Text(told)
    if choices.paused:
        yield Text("PAUSED: what is below stands still, the recording goes on", style="reverse")


def _loop(numbers: LiveNumbers, one: LoopGlance, width: int) -> Iterator[Text]:
    yield Text()
    yield Text.assemble((_name(one), "bold"), ": ", ", ".join(_figures(numbers, one)) or "no pace yet")
    yield from _in_progress(numbers, one, width)


def _figures(numbers: LiveNumbers, one: LoopGlance) -> Iterator[str]:
    pace = numbers.paces.get(one.loop.id)
    if pace is not None:
        yield f"busy {percent(pace.utilization)}"
        yield f"{pace.iterations_a_second:,.0f} iterations/s"
        yield f"{pace.stalls_a_minute:,.0f} stalls/min"


def _in_progress(numbers: LiveNumbers, one: LoopGlance, width: int) -> Iterator[Text]:
    stall = numbers.running.get(one.loop.id)
    if stall is None:
        yield Text("now: waits for work", style="dim")
        return
    if stall.duration_ns < numbers.glance.threshold_ns:
        yield Text(f"now: an iteration of {duration(stall.duration_ns)}", style="dim")
        return
    yield Text(f"now: OVERDUE, {_age(stall)}{_inside(stall)}", style="bold red")
    for frame in _stack(stall)[:STACK_SHOWN]:
        yield Text(fitted(f"    {place(frame.file, frame.line)} in {frame.function}", width), style="red")


def _age(stall: Stall) -> str:
    return f"in progress for {duration(stall.duration_ns)}"


def _inside(stall: Stall) -> str:
    handler = f" in {stall.current.name}" if stall.current else ""
    call = next((span.call for span in reversed(stall.spans) if span.call), None)
    named = call and f"{call.name}({short_path(call.resource.name) if call.resource else call.detail})"
    return f"{handler}{f', {named}' if named else ''}"


def _stack(stall: Stall) -> Stack:
    """Where it was seen last, innermost first; empty when nobody has sampled it yet."""
    return next((span.stack for span in reversed(stall.spans) if span.stack), ())


def _others(numbers: LiveNumbers, others: Sequence[LoopGlance]) -> Iterator[Text]:
    for one in others[:LOOPS_SHOWN]:
        stall = numbers.running.get(one.loop.id)
        overdue = stall is not None and stall.duration_ns >= numbers.glance.threshold_ns
        told = f"{_name(one)}: {', '.join(_figures(numbers, one))}"
        told += f", OVERDUE {_age(stall)}" if stall is not None and overdue else ""
        yield Text(told, style="red" if overdue else "")
    if len(others) > LOOPS_SHOWN:
        yield Text(f"and {len(others) - LOOPS_SHOWN} more loops", style="dim")


def _bars(one: LoopGlance) -> Iterator[Text]:
    drawn = list(histogram.draw(one, whole=False))
    if drawn:
        yield Text()
        yield from map(Text, drawn)
        yield Text(f"{_quantiles(one)}; {_verdict(one)}", style="bold")


def _quantiles(one: LoopGlance) -> str:
    parts = [("p50", one.p50_ns), ("p99", one.p99_ns), ("longest", one.longest_ns)]
    return ", ".join(f"{name} {duration(ns)}" for name, ns in parts if ns is not None)


def _verdict(one: LoopGlance) -> str:
    stall_modes = [mode for mode in one.modality.modes if mode.stall_mode]
    told = [f"{percent(mode.share)} of iterations near {duration(mode.peak_ns)}" for mode in stall_modes]
    shape = "too few iterations to judge" if one.modality.shape == "too-few" else one.modality.shape
    return f"{shape}{': ' if told else ''}{', '.join(told)}"


def _culprits(numbers: LiveNumbers, order: str, width: int) -> Iterator[Text]:
    found = _sorted(numbers.glance.culprits, order)
    if found:
        yield Text()
        yield Text(f"{culprit_table.HEAD}call", style="bold")
        for one in found:
            yield from culprit_table.rows(one, width)


def _sorted(culprits: Sequence[Culprit], order: str) -> list[Culprit]:
    keys = {"time": lambda one: -one.ns, "stalls": lambda one: -one.stalls, "longest": lambda one: -one.longest_ns}
    return sorted(culprits, key=keys[order])


def _fitting(bars: list[Text], culprits: list[Text], room: int) -> list[Text]:
    """Both where there is room; else the culprits give way down to the first few, and then the histogram."""
    least = min(len(culprits), 2 + 2 * LEAST_CULPRITS)
    if len(bars) + least <= room:
        return [*bars, *culprits[: room - len(bars)]]
    return culprits[:room]


def _keys(choices: Choices) -> Text:
    if not choices.keys:
        return Text("Ctrl-C ends it", style="dim")
    pause = "go on" if choices.paused else "pause"
    return Text(f"s sort (by {_LIGHT[choices.order]})  p {pause}  n next loop  q quit", style="dim")


def _cut(text: Text, width: int) -> Text:
    text.no_wrap = True
    text.truncate(width, overflow="ellipsis")
    return text


def _name(one: LoopGlance) -> str:
    return f"loop {one.loop.id} ({one.loop.kind}, pid {one.loop.pid})"


def _shape(loops: Sequence[LoopGlance]) -> str:
    return _verdict(loops[0]) if loops else "no loop so far"


def _overdue_line(numbers: LiveNumbers) -> str:
    overdue = [one for one in numbers.running.values() if one.duration_ns >= numbers.glance.threshold_ns]
    if not overdue:
        return ""
    longest = max(overdue, key=lambda one: one.duration_ns)
    frame = next(iter(_stack(longest)), None)
    where = f" at {place(frame.file, frame.line)}" if frame else ""
    return f"OVERDUE {_age(longest)}{_inside(longest)}{where}"


def _loop_json(numbers: LiveNumbers, one: LoopGlance) -> dict[str, Any]:
    pace, stall = numbers.paces.get(one.loop.id), numbers.running.get(one.loop.id)
    return {
        "id": one.loop.id,
        "pid": one.loop.pid,
        "kind": one.loop.kind,
        "iterations": one.iterations,
        "utilization": pace and round(pace.utilization, 4),
        "iterations_per_s": pace and round(pace.iterations_a_second, 1),
        "stalls_per_min": pace and round(pace.stalls_a_minute, 1),
        "p50_ms": one.p50_ns and one.p50_ns / 1e6,
        "p99_ms": one.p99_ns and one.p99_ns / 1e6,
        "shape": one.modality.shape,
        "modes": [
            {"lo_ms": mode.lo_ns / 1e6, "hi_ms": mode.hi_ns / 1e6, "peak_ms": mode.peak_ns / 1e6,
             "iterations": mode.iterations, "share": mode.share}
            for mode in one.modality.modes
        ],
        "in_progress": _running_json(stall, numbers.glance.threshold_ns),
    }  # fmt: skip


def _running_json(stall: Stall | None, threshold_ns: int) -> Mapping[str, Any] | None:
    if stall is None:
        return None
    return {
        "age_ms": stall.duration_ns / 1e6,
        "overdue": stall.duration_ns >= threshold_ns,
        "handler": stall.current and stall.current.name,
        "stack": [{"file": frame.file, "line": frame.line, "function": frame.function} for frame in _stack(stall)],
    }


def _culprit_json(one: Culprit) -> dict[str, Any]:
    return {
        "rank": one.rank,
        "share": one.share,
        "stalls": one.stalls,
        "longest_ms": one.longest_ns / 1e6,
        "cause": one.cause,
        "syscall": one.syscall,
        "resource": one.resource,
        "handler": one.handler and one.handler.name,
        "location": one.location
        and {"file": one.location.file, "line": one.location.line, "function": one.location.function},
    }
