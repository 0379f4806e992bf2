"""Stall records: the JSON that crosses the ring, complete in itself.

``{"loop", "start", "end", "task", "handler", "handlers", "frames", "spans", "gc"}``: ``frames``
are ``[file, line, function]``, stacks are lists of indices into them, innermost first;
``handlers`` are ``[slot, calls, total_ns]``, heaviest first, and under slot 0 all that are not named; spans are
``[from, to, samples, stack, call, state, cpu, run_delay, switches, late]`` and calls
``[name, kind, resource, detail]``; ``gc`` are ``[start, duration, generation, stack]``.
"""

from __future__ import annotations

import sys

from . import layout, text
from .stacks import FrameTable

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple


_DEPTHS = (40, 16, 6)  # tried in turn until the record fits
_MAX_HANDLERS = 8


def of_stall(agent: Any, ended: Any) -> str:
    """The record of an iteration that ended."""
    spans = ended.progress.spans if ended.progress is not None else []
    pauses = agent.pauses.within(ended.state.ident, ended.started, ended.ended)
    record: Dict[str, object] = {
        "loop": _slot(ended.state),
        "start": ended.started,
        "end": ended.ended,
        "task": ended.progress.task if ended.progress is not None else None,
        "handler": handler_named(agent, ended.progress.handler if ended.progress is not None else None),
        "handlers": heaviest(agent, [(base, calls, total) for base, (calls, total) in (ended.trail or {}).items()]),
    }
    return fitting(record, spans, pauses, layout.RECORD_TEXT_MAX)


def of_progress(agent: Any, state: Any, progress: Any, now: int) -> str:
    """The record of the overdue iteration, so far; its ``end`` is the time of the last sample."""
    record: Dict[str, object] = {
        "loop": _slot(state),
        "start": progress.started,
        "end": now,
        "task": progress.task,
        "handler": handler_named(agent, progress.handler),
        "handlers": [],
    }
    pauses = agent.pauses.within(state.ident, progress.started, now)
    return fitting(record, progress.spans, pauses, layout.PROGRESS_BYTES)


def task_name(state: Any) -> Optional[str]:
    """Name of the task that the loop is running now, if any."""
    tasks: Any = sys.modules.get("asyncio.tasks")  # other loops do without
    loop = state.loop()
    if tasks is None or loop is None:
        return None
    task = tasks.current_task(loop)
    name = tasks.Task.get_name(task) if isinstance(task, tasks.Task) else None  # not the user's own get_name
    return name[:256] if isinstance(name, str) else None


def _slot(state: Any) -> int:
    return int((state.loop_at - layout.LOOPS_AT) // layout.LOOP_BYTES)


def handler_named(agent: Any, code: Any) -> Optional[List[object]]:
    """[name, file, line] of a handler by its code; None without one."""
    if code is None:
        return None
    return [agent.handlers.name_of(code)[:256], code.co_filename[-1024:], code.co_firstlineno]


def heaviest(agent: Any, parts: List[Tuple[int, int, int]]) -> List[List[int]]:
    """[slot, calls, total_ns] of the handlers that took most, from (cell index of the histogram, calls, total_ns)."""
    ranked = sorted(parts, key=lambda part: -part[2])
    told = [[agent.handlers.slot_of(base), calls, total] for base, calls, total in ranked[:_MAX_HANDLERS]]
    rest = ranked[_MAX_HANDLERS:]
    return told + ([[0, sum(calls for _, calls, _ in rest), sum(total for *_, total in rest)]] if rest else [])


def fitting(record: Dict[str, object], spans: Any, pauses: Any, room: int, calls: Any = ()) -> str:
    """The record's JSON, with as much of each stack as there is room for."""
    for depth in _DEPTHS:
        encoded = text.encode(_with_stacks(record, spans, pauses, calls, depth))
        if len(encoded) <= room:
            return encoded
    return text.encode(_with_stacks(record, spans[:4], pauses[:1], calls[:8], 3))


def _with_stacks(record: Dict[str, object], spans: Any, pauses: Any, calls: Any, depth: int) -> Dict[str, object]:
    table = FrameTable(depth)
    full = dict(record)
    full["spans"] = [
        [s.from_ns, s.to_ns, s.samples, table.put(s.stack), s.facts.call, s.facts.state]
        + [s.cpu_ns, s.run_delay_ns, s.switches, s.late_ns]
        for s in spans
    ]
    full["gc"] = [[p.start_ns, p.duration_ns, p.generation, table.put(p.stack)] for p in pauses]
    full["calls"] = [[c.start_ns, c.duration_ns, c.count, c.call, table.put(c.stack)] for c in calls]
    full["frames"] = table.frames
    return full
