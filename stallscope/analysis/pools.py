"""How large a thread pool must be for a culprit that is moved to one, and whether its queue would be the new stall.

The upper bound is the classic one (Goetz, Java Concurrency in Practice, 8.2): cores x (1 + wait / compute); threads of
one Python process share the GIL, so it reckons with one core.  What the load needs is a question of queueing: calls
that come at random at a measured rate, each holding a thread for as long as it was measured to stall, wait for a free
thread with the chance that Erlang's C formula gives (Erlang 1917; Kleinrock, Queueing Systems, vol. 1, 3.5).  The calls
would go to the process's default executor, which has so many threads and so much to do already as was seen.

A stalled loop throttles its own clients: moved away, the calls may come faster than they were measured to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stallscope.analysis.catalogue import CALLS
from stallscope.analysis.culprits import Blame
from stallscope.analysis.findings import Culprit, LoopFindings, Pool
from stallscope.analysis.ledger import Slice
from stallscope.analysis.sites import location
from stallscope.recording.nouns import Executor, Recording, Stall

OFFLOADED = frozenset({"flock", "fcntl"}).union(
    *(CALLS[group] for group in ("opens", "reads", "writes", "syncs", "copies"))
)
SELDOM = 0.05  # a call in twenty may wait for a thread
MOST_THREADS = 512
DEFAULT_LEAST = 5  # ThreadPoolExecutor takes min(32, cores + 4) threads: at least so many
BUSY = 0.8  # from this utilization on the pool is the new queue


def pool(
    culprit: Culprit,
    blame: Blame,
    stalls: Sequence[Stall],
    divided: Sequence[Sequence[Slice]],
    loops: Sequence[LoopFindings],
    recording: Recording,
) -> Pool | None:
    """The pool for one process; None for what should not go to a thread, or where the loops' wall time is unknown."""
    held = Counter(stalls[index].loop_id for index in blame.by_stall)
    wall_ns = sum(one.wall_ns for one in loops if one.loop.id in held)
    if culprit.kind != "site" or culprit.syscall not in OFFLOADED or not wall_ns or not blame.by_stall:
        return None
    calls = culprit.calls or len(blame.by_stall)
    wait_ns = blame.ns / calls
    compute_ns = sum(_computed(culprit, divided[index]) for index in blame.by_stall) / calls
    rate_per_s = calls / (wall_ns / 1e9)
    work = rate_per_s * (wait_ns + compute_ns) / 1e9
    threads = next((n for n in range(1, MOST_THREADS + 1) if n > work and erlang_c(n, work) <= SELDOM), MOST_THREADS)
    executor = _default_executor(recording, next(iter(dict(held.most_common(1)))))
    size = (executor and executor.most_threads) or DEFAULT_LEAST
    offered = work + (executor.busy / executor.looks if executor and executor.looks else 0.0)
    return Pool(
        wait_ns=round(wait_ns),
        compute_ns=round(compute_ns),
        rate_per_s=rate_per_s,
        most_threads=1 + wait_ns / compute_ns if compute_ns else None,
        threads=threads,
        utilization=work / threads,
        p_queued=erlang_c(threads, work),
        mean_queue_ns=round(min(wall_ns, _mean_wait(threads, work, wait_ns + compute_ns))),
        executor=executor,
        default_threads=size,
        default_utilization=offered / size,
        default_p_queued=erlang_c(size, offered),
        new_queue=offered >= BUSY * size,
    )


def _default_executor(recording: Recording, loop_id: int) -> Executor | None:
    """The default executor of a loop's process; of several the busiest."""
    process = next((loop.process_id for loop in recording.loops if loop.id == loop_id), None)
    own = [one for one in recording.executors if one.is_default and one.process_id == process]
    return max(own, key=lambda one: one.busy, default=None)


def erlang_c(servers: int, work: float) -> float:
    """The chance that an arrival must wait, `work` being the arrival rate times the mean service (in Erlang)."""
    if work >= servers:
        return 1.0
    blocked = 1.0  # Erlang B by its recursion, which does not overflow
    for number in range(1, servers + 1):
        blocked = work * blocked / (number + work * blocked)
    return servers * blocked / (servers - work * (1 - blocked))


def _mean_wait(servers: int, work: float, service_ns: float) -> float:
    return erlang_c(servers, work) * service_ns / (servers - work) if work < servers else float("inf")


def _computed(culprit: Culprit, parts: Sequence[Slice]) -> int:
    """The CPU time of a stall that would move with the call: that of the same function."""
    where = culprit.location
    return sum(
        part.ns
        for part in parts
        if part.cause in ("python-cpu", "native-cpu") and where is not None and _in(part, where.file, where.function)
    )


def _in(part: Slice, file: str, function: str) -> bool:
    found = location(part.stack)
    return found is not None and (found.file, found.function) == (file, function)
