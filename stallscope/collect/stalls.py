"""Stall records of the ring (``agent.report``) turned into the recording's nouns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from stallscope.recording.nouns import (
    Call,
    Frame,
    GcPause,
    Handler,
    HandlerTime,
    Resource,
    ResourceKind,
    Span,
    Stack,
    Stall,
)

_KINDS = frozenset(get_args(ResourceKind))


def stall_of(
    record: Mapping[str, Any], loop_id: int, handler_of: Callable[[int], Handler], *, end_ns: int | None = None
) -> Stall:
    """The stall of one record; with ``end_ns`` one that was still in progress then.

    Raises KeyError, IndexError, TypeError or ValueError for a record that is not of the form.
    """
    frames = [Frame(str(file), int(line), str(function)) for file, line, function in record["frames"]]
    start = int(record["start"])
    current = record["handler"]
    return Stall(
        loop_id=loop_id,
        start_ns=start,
        duration_ns=int(end_ns if end_ns is not None else record["end"]) - start,
        finished=end_ns is None,
        task=record["task"],
        handlers=tuple(HandlerTime(handler_of(slot), calls, total) for slot, calls, total in record["handlers"]),
        current=Handler(*current) if current else None,
        spans=tuple(_span(fields, frames) for fields in record["spans"]),
        pauses=tuple(GcPause(begun, spent, gen, _stack(stack, frames)) for begun, spent, gen, stack in record["gc"]),
    )


def _span(fields: Sequence[Any], frames: Sequence[Frame]) -> Span:
    begun, ended, samples, stack, call, state, cpu, delay, switches, late = fields
    return Span(
        from_ns=begun,
        to_ns=ended,
        samples=samples,
        stack=_stack(stack, frames),
        call=_call(call),
        state=state,
        cpu_ns=cpu,
        run_delay_ns=delay,
        switches=switches,
        late_ns=late,
    )


def _stack(indices: Sequence[int], frames: Sequence[Frame]) -> Stack:
    return tuple(frames[index] for index in indices)


def _call(fields: Sequence[str] | None) -> Call | None:
    if not fields:
        return None
    name, kind, resource, detail = fields
    return Call(name, Resource(kind if kind in _KINDS else "other", resource), detail)  # type: ignore[arg-type]
