"""Sockets that cannot block are not timed: what a program does to make one block again must be noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope import pulse
from tests.end_to_end.observing import observed, recorded, write

pytestmark = pytest.mark.skipif(pulse.unusable_reason() is not None, reason=f"no pulse: {pulse.unusable_reason()}")

PROGRAM = """
import asyncio, socket, struct

ours, theirs = socket.socketpair()
ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 60_000))

def receive():
    try:
        ours.recv(1)
    except BlockingIOError:
        pass

async def turns(blocking, count):
    ours.setblocking(blocking)
    for _ in range(count):
        receive()
        await asyncio.sleep(0)

async def main():
    await turns(False, 100)
    await turns(True, 3)
    await turns(False, 100)
    await turns(True, 3)

asyncio.run(main())
"""


def test_a_socket_that_blocks_again(tmp_path: Path) -> None:
    write(tmp_path, "program.py", PROGRAM)
    assert observed(tmp_path, "program.py").code == 0
    calls = [call for stall in recorded(tmp_path).stalls for call in stall.calls if call.call.name == "recvfrom"]
    assert len(calls) == 6
    assert all(call.duration_ns > 50_000_000 and call.stack[0].function == "receive" for call in calls)
