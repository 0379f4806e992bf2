"""Records of the ring (``agent.report``, ``agent.executors``) turned into the recording's nouns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from stallscope.recording.nouns import (
    Call,
    CallSite,
    Executor,
    Frame,
    GcPause,
    Handler,
    HandlerTime,
    Resource,
    ResourceKind,
    Span,
    Stack,
    Stall,
    TimedCall,
)

_KINDS = frozenset(get_args(ResourceKind))
MALFORMED = (KeyError, IndexError, TypeError, ValueError, OverflowError)
"""What `stall_of` raises for a record that is not of the form: another process wrote it, so it may be anything."""


def stall_of(
    record: Mapping[str, Any], loop_id: int, handler_of: Callable[[int], Handler], *, end_ns: int | None = None
) -> Stall:
    """The stall of one record; with ``end_ns`` one that was still in progress then.

    Raises one of MALFORMED for a record that is not of the form.
    """
    frames = [Frame(str(file), int(line), str(function)) for file, line, function in record["frames"]]
    start = int(record["start"])
    return Stall(
        loop_id=loop_id,
        start_ns=start,
        duration_ns=int(end_ns if end_ns is not None else record["end"]) - start,
        finished=end_ns is None,
        task=None if record["task"] is None else str(record["task"]),
        handlers=tuple(HandlerTime(handler_of(slot), int(n), int(total)) for slot, n, total in record["handlers"]),
        current=_handler(record["handler"]),
        spans=tuple(_span(fields, frames) for fields in record["spans"]),
        calls=tuple(_timed_call(fields, frames) for fields in record.get("calls", ())),
        pauses=tuple(_pause(fields, frames) for fields in record["gc"]),
    )


def site_of(record: Mapping[str, Any], process_id: int) -> CallSite:
    """The call site of one record. Raises one of MALFORMED for a record that is not of the form."""
    frames = [Frame(str(file), int(line), str(function)) for file, line, function in record["frames"]]
    call = _call(record["site"])
    if call is None:
        raise ValueError("a call site without a call")
    return CallSite(
        process_id=process_id,
        handler=_handler(record["handler"]),
        call=call,
        stack=_stack(record["stack"], frames),
        hits=int(record["hits"]),
        total_ns=int(record["total"]),
        longest_ns=int(record["longest"]),
    )


def executor_of(fields: Sequence[Any], process_id: int) -> Executor:
    """A thread pool of an ``executors`` record (``agent.executors``).

    Raises one of MALFORMED for a record that is not of the form.
    """
    name, is_default, most_threads, threads, looks, busy, queued_looks, deepest = fields
    counts = (int(threads), int(looks), int(busy), int(queued_looks), int(deepest))
    return Executor(process_id, str(name), bool(is_default), _known(most_threads), *counts)


def _handler(fields: Sequence[Any] | None) -> Handler | None:
    if not fields:
        return None
    name, file, line = fields
    return Handler(str(name), str(file), int(line))


def _span(fields: Sequence[Any], frames: Sequence[Frame]) -> Span:
    begun, ended, samples, stack, call, state, cpu, delay, switches, late = fields
    return Span(
        from_ns=int(begun),
        to_ns=int(ended),
        samples=int(samples),
        stack=_stack(stack, frames),
        call=_call(call),
        state=str(state),
        cpu_ns=_known(cpu),
        run_delay_ns=_known(delay),
        switches=_known(switches),
        late_ns=int(late),
    )


def _timed_call(fields: Sequence[Any], frames: Sequence[Frame]) -> TimedCall:
    begun, spent, count, call, stack = fields
    named = _call(call)
    if named is None:
        raise ValueError("a timed call without a call")
    return TimedCall(int(begun), int(spent), named, _stack(stack, frames), int(count))


def _pause(fields: Sequence[Any], frames: Sequence[Frame]) -> GcPause:
    begun, spent, generation, stack = fields
    return GcPause(int(begun), int(spent), int(generation), _stack(stack, frames))


def _known(value: Any) -> int | None:
    return None if value is None else int(value)


def _stack(indices: Sequence[int], frames: Sequence[Frame]) -> Stack:
    return tuple(frames[index] for index in indices)


def _call(fields: Sequence[str] | None) -> Call | None:
    if not fields:
        return None
    name, kind, resource, detail = fields
    return Call(str(name), Resource(kind if kind in _KINDS else "other", str(resource)), str(detail))  # type: ignore[arg-type]
