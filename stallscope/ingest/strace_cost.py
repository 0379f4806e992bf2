"""By how much strace made the iterations longer, told by the trace itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stallscope.ingest.rebuild import Thread
from stallscope.ingest.strace_lines import LINE, Clock, parsed
from stallscope.ingest.verdicts import ms


def inflation(head: bytes, threads: Iterable[Thread]) -> Iterator[str]:
    """In words.

    strace stops the thread twice a call.  The shortest gaps between two calls of a thread (the 10th percentile of those
    in the first 64 KiB) are little but that.
    """
    gaps_ns = sorted(_gaps_ns(head))
    if len(gaps_ns) < 20:
        yield "strace stops the program twice a call and inflates its times: by how much, this trace does not tell"
        return
    cost_ns = gaps_ns[len(gaps_ns) // 10]
    loops = [thread for thread in threads if thread.is_loop and thread.iterations]
    calls = sum(thread.lines for thread in loops) / (sum(thread.iterations for thread in loops) or 1)
    yield (
        f"strace stops the program twice a call, which cost some {cost_ns / 1e3:.0f} µs a call: with {calls:.1f} calls "
        f"the mean iteration seems {ms(cost_ns * calls)} longer than it is"
    )


def _gaps_ns(head: bytes) -> Iterator[int]:
    clock, ends = Clock(), dict[bytes, int]()
    for line in head.splitlines():
        found = LINE.fullmatch(line)
        call = parsed(found[3], 0) if found else None
        if found is None:
            continue
        now_ns = clock.move(found[2])
        end_ns = ends.pop(found[1], None)
        if call and call.duration_ns is not None and not clock.coarse:
            if end_ns is not None and now_ns >= end_ns:
                yield now_ns - end_ns
            ends[found[1]] = now_ns + call.duration_ns
