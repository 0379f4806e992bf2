"""Culprits and victims: the delay that each handler inflicted on the others, and the delay that it suffered.

Which call waited behind which stall is not recorded: a call becomes ready while the loop is held up, and is run in the
next iteration like any other.  But calls that become ready at random moments (see `arrival`) wait behind stalls of
lengths s, in wall time T, for a time of sum(s**2) / 2T each.  Of a stall each handler has the part that it took, so

    a handler's calls suffered   calls      x  sum of s * (s - own part) / 2T
    and it inflicted             all others' calls  x  sum of s * own part / 2T

which are equal over all handlers, but for the time that is nobody's.  This is an estimate: calls that a stall itself
set off come later than random ones, and wait less.  What was seen is counted besides: the calls that ran in an
iteration that another handler stalled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from stallscope.analysis.culprits import NOBODYS, handler_of
from stallscope.analysis.findings import HandlerDelay, LoopFindings
from stallscope.analysis.ledger import Slice
from stallscope.recording.nouns import Handler, Recording, Stall


def delays(
    recording: Recording, loops: Sequence[LoopFindings], stalls: Sequence[Stall], divided: Sequence[Sequence[Slice]]
) -> tuple[HandlerDelay, ...]:
    """Every handler that took time of a stall, or lost some to one; by what it inflicted, then by what it suffered.

    Handlers are counted per process, so where a process has several loops nobody can say whom a stall of one delayed:
    inflicted and suffered are then None.
    """
    own: Counter[Handler] = Counter()
    caught: Counter[Handler] = Counter()
    parts: dict[int, list[tuple[int, Counter[Handler]]]] = defaultdict(list)
    for stall, slices in zip(stalls, divided, strict=True):
        taken = _taken(stall, slices)
        own.update(taken)
        caught.update(_caught(stall, taken))
        parts[stall.loop_id].append((stall.duration_ns, taken))
    inflicted, suffered = _estimates(recording, loops, parts)
    known = inflicted is not None and suffered is not None
    calls = _calls(recording)
    everyone = {*own, *caught, *(suffered or ()), *(inflicted or ())}
    found = [
        HandlerDelay(
            handler=handler,
            calls=calls.get(handler),
            own_ns=own[handler],
            inflicted_ns=round(inflicted[handler]) if known and inflicted is not None else None,
            suffered_ns=round(suffered[handler]) if known and suffered is not None else None,
            caught_calls=caught[handler],
        )
        for handler in everyone
    ]
    return tuple(sorted(found, key=_order))


def _order(one: HandlerDelay) -> tuple[int, int, int, str]:
    return (-(one.inflicted_ns or 0), -one.own_ns, -(one.suffered_ns or 0), one.handler.name)


def _taken(stall: Stall, slices: Iterable[Slice]) -> Counter[Handler]:
    """What each handler took of a stall: as timed, where the timed ones made most of it, else as its parts say."""
    timed = Counter({one.handler: one.total_ns for one in stall.handlers})
    if 2 * sum(timed.values()) >= stall.duration_ns:
        return timed
    blamed: Counter[Handler] = Counter()
    for part in slices:
        handler = None if part.cause in NOBODYS else handler_of(stall, part.stack)
        if handler is not None:
            blamed[handler] += part.ns
    return blamed


def _caught(stall: Stall, taken: Counter[Handler]) -> Counter[Handler]:
    """The calls that ran in the same iteration, of handlers other than the heaviest."""
    heaviest = max(taken, key=lambda one: taken[one], default=None)
    return Counter({one.handler: one.calls for one in stall.handlers if one.handler != heaviest})


def _calls(recording: Recording) -> dict[Handler, int]:
    calls: Counter[Handler] = Counter()
    for one in recording.handlers:
        calls[one.handler] += sum(one.counts.values())
    return dict(calls)


def _estimates(
    recording: Recording, loops: Sequence[LoopFindings], parts: dict[int, list[tuple[int, Counter[Handler]]]]
) -> tuple[Counter[Handler] | None, Counter[Handler] | None]:
    """Inflicted and suffered ns of each handler; None where no process has handlers and one loop."""
    inflicted: Counter[Handler] = Counter()
    suffered: Counter[Handler] = Counter()
    alone = Counter(one.loop.process_id for one in loops if one.iterations)
    known = False
    for loop in loops:
        process = loop.loop.process_id
        calls = {one.handler: sum(one.counts.values()) for one in recording.handlers if one.process_id == process}
        if not calls or not loop.wall_ns or alone[process] != 1 or not loop.iterations:
            continue
        known = True
        _add(loop.wall_ns, calls, parts.get(loop.loop.id, []), inflicted, suffered)
    return (inflicted, suffered) if known else (None, None)


def _add(
    wall_ns: int,
    calls: dict[Handler, int],
    parts: Sequence[tuple[int, Counter[Handler]]],
    inflicted: Counter[Handler],
    suffered: Counter[Handler],
) -> None:
    """Adds one loop's delays: weights are ns² of stalls, by whose part they were."""
    made: Counter[Handler] = Counter()
    for length, taken in parts:
        for handler, ns in taken.items():
            made[handler] += length * ns
    everybody, total = sum(calls.values()), sum(made.values())
    for handler, squares in made.items():
        inflicted[handler] += (everybody - calls.get(handler, 0)) * squares // (2 * wall_ns)
    for handler, number in calls.items():
        suffered[handler] += number * (total - made[handler]) // (2 * wall_ns)
