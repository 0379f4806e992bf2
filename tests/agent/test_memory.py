"""The writing end of the shared memory: its descriptors."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.interpreters import Interpreter

ROOT = Path(__file__).parent.parent.parent

# Another thread takes and gives back the lowest free descriptor all the time, as a busy server does.
PROGRAM = """
import gc, os, sys, threading
from stallscope.agent import memory
over = []
def churn():
    while not over:
        os.close(os.open("/dev/null", os.O_RDONLY))
thread = threading.Thread(target=churn)
thread.start()
sys.setswitchinterval(1e-6)
for _ in range(200):
    held = memory.Memory(10**7)
    held.close_fd()
    held.spare_descriptors()
    del held
gc.collect()
over.append(True)
thread.join()
links = [os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
print(sum("stallscope" in os.readlink(link) for link in links if os.path.islink(link)))
"""


def test_memories_given_up_leave_no_descriptor_behind_a_busy_thread(interpreter: Interpreter) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [interpreter.executable, "-c", PROGRAM]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert finished.stdout == "0\n"
