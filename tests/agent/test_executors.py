"""Thread pools of the observed program: their size, their work and their queue, as they are."""

from __future__ import annotations

from stallscope.recording.nouns import Executor
from tests.agent.observing import Observing

TWO_POOLS = """
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from truth import *

async def main():
    loop, go = asyncio.get_running_loop(), threading.Event()
    calls = [loop.run_in_executor(own, go.wait) for _ in range(5)]
    calls += [loop.run_in_executor(None, go.wait) for _ in range(3)]
    until = time.monotonic() + 0.45  # several looks: one comes each tenth of a second
    while time.monotonic() < until: await asyncio.sleep(0.01)
    go.set()
    await asyncio.gather(*calls)
    tell(most=loop._default_executor._max_workers)

own = ThreadPoolExecutor(2, thread_name_prefix="disk")
asyncio.run(main())
own.shutdown()
"""

NO_POOL = """
import asyncio, concurrent.futures.thread
asyncio.run(asyncio.sleep(0.2))
"""


def test_pools_are_seen_with_their_size_their_work_and_their_queue(observing: Observing) -> None:
    ran = observing.run(TWO_POOLS)
    assert (ran.code, ran.stderr) == (0, "")
    pools = {pool.is_default: pool for pool in ran.recording.executors}
    own, default = pools[False], pools[True]
    assert (own.name, own.most_threads, own.threads, own.deepest) == ("disk", 2, 2, 3)
    assert (default.most_threads, default.threads) == (ran.told["most"], 3)
    assert _mean_busy(own) <= 2
    assert own.queued_looks >= 1


def test_without_a_pool_none_is_seen(observing: Observing) -> None:
    assert observing.run(NO_POOL).recording.executors == ()


def _mean_busy(pool: Executor) -> float:
    return pool.busy / pool.looks
