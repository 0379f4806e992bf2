"""Threads of the program end while the agent looks at them: their memory goes with them."""

from __future__ import annotations

from tests.agent.observing import Observing

# Stacks of this size are given back to the kernel at once; libc keeps smaller ones for the next thread.
CHURN = """
import _thread, sys, threading
from truth import *

threading.stack_size(64 << 20)
sys.setswitchinterval(1e-6)
going_on = [True]
def short(): sum(range(300))
def churn():
    while going_on[0]:
        try:
            _thread.start_new_thread(short, ())
        except RuntimeError:  # too many at once
            sleep(0.001)
maker = threading.Thread(target=churn)
maker.start()

look = agent_module("holders")._cpu_times
spent = [look([])[threading.get_ident()] for _ in range(10000)]
going_on[0] = False
maker.join()
tell(grows=spent == sorted(spent) and spent[-1] > 0)
"""


def test_threads_may_end_while_their_cpu_time_is_asked_for(observing: Observing) -> None:
    assert observing.run(CHURN).told == {"grows": True}
