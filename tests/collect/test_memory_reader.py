"""The reading end of the shared memory: exact on what an agent writes, calm on anything else."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable

import pytest

from stallscope.agent import layout
from stallscope.collect.memory_reader import MemoryReader
from stallscope.errors import NotObservable
from tests.collect.memories import STARTED_NS, THRESHOLD_NS, HandMadeMemory, stall_record


def test_counts_are_what_was_gained() -> None:
    memory = HandMadeMemory()
    memory.loop(counts={5: 7, layout.BUCKETS - 1: 1})
    reader = memory.reader()
    assert [dict(slot.fresh) for slot in reader.loops()] == [{5: 7, layout.BUCKETS - 1: 1}]
    assert [dict(slot.fresh) for slot in reader.loops()] == [{}]
    memory.loop(counts={5: 9})
    assert [dict(slot.fresh) for slot in reader.loops()] == [{5: 2}]


def test_a_slot_given_to_another_loop_counts_from_zero() -> None:
    memory = HandMadeMemory()
    cell = memory.loop(counts={5: 7})
    reader = memory.reader()
    list(reader.loops())
    memory.loop(counts={5: 3})
    memory.cells[cell + layout.L_EPOCH] = 2
    (slot,) = reader.loops()
    assert (slot.epoch, dict(slot.fresh)) == (2, {5: 3})


def test_what_is_remembered_does_not_grow_with_the_loops_that_were_there() -> None:
    memory = HandMadeMemory()
    cell = memory.loop(counts={5: 7})
    reader = memory.reader()
    tracemalloc.start()
    for epoch in range(2, 300):  # threads that come and go, each with a loop
        memory.cells[cell + layout.L_EPOCH] = epoch
        (slot,) = reader.loops()
        assert dict(slot.fresh) == {5: 7}
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10 * layout.BUCKETS * layout.CELL


def test_identity_and_header() -> None:
    memory = HandMadeMemory()
    memory.loop(slot=2)
    reader = memory.reader()
    (slot,) = reader.loops()  # those before it were never given to a loop
    assert (slot.slot, slot.kind, slot.name, slot.tid, slot.is_open) == (2, "asyncio", "Main Loop", 77, True)
    assert (reader.started_ns, reader.threshold_ns, reader.error) == (STARTED_NS, THRESHOLD_NS, "")
    reader.beat(42)
    assert memory.cells[layout.H_HEARTBEAT] == 42


def test_records_are_read_once_and_in_order() -> None:
    memory = HandMadeMemory()
    reader = memory.reader()
    for task in ("one", "two"):
        memory.record(stall_record(task=task))
    assert [record["task"] for record in reader.records()] == ["one", "two"]
    assert list(reader.records()) == []
    assert memory.cells[layout.H_RING_TAIL] == 2


def test_the_ring_goes_round() -> None:
    memory = HandMadeMemory()
    reader = memory.reader()
    for number in range(3 * layout.RECORDS):
        memory.record(stall_record(task=str(number)))
        assert [record["task"] for record in reader.records()] == [str(number)]


def test_a_ring_that_overtook_its_reader_gives_the_newest() -> None:
    memory = HandMadeMemory()
    reader = memory.reader()
    for number in range(layout.RECORDS + 5):
        memory.record(stall_record(task=str(number)))
    assert next(record["task"] for record in reader.records()) == "5"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (b"not json", {}),
        (b"[1, 2]", {}),
        (b"\xff\xfe\x00", {}),
        (b"", {}),
        (stall_record()[:-5], {}),
        (stall_record(), {"length": 2**32 - 1}),
        (stall_record(), {"length": layout.RECORD_TEXT_MAX + 1}),
        (stall_record(), {"sequence": 99}),
        (b"[" * 8000, {}),
        (b"9" * 5000, {}),
    ],
    ids=["text", "list", "bytes", "empty", "cut", "length", "long", "number", "deep", "digits"],
)
def test_a_malformed_record_is_passed_over(text: bytes, options: dict[str, int]) -> None:
    memory = HandMadeMemory()
    reader = memory.reader()
    memory.record(text, **options)
    memory.record(stall_record(task="after"))
    assert [record["task"] for record in reader.records()] == ["after"]


def test_the_progress_of_a_hung_iteration() -> None:
    memory = HandMadeMemory()
    cell = memory.loop()
    memory.cells[cell + layout.L_STARTED] = STARTED_NS
    reader = memory.reader()
    assert list(reader.in_progress()) == [(0, STARTED_NS, {})]
    text = stall_record()
    memory.text(layout.LOOPS_AT + layout.PROGRESS_AT, text)
    memory.cells[cell + layout.L_PROGRESS_LEN] = len(text)
    ((_, _, record),) = reader.in_progress()
    assert record["task"] == "Task-1"
    memory.cells[cell + layout.L_PROGRESS_SEQ] = 3  # being written
    assert list(reader.in_progress()) == [(0, STARTED_NS, {})]
    memory.cells[cell + layout.L_PROGRESS_SEQ], memory.cells[cell + layout.L_STARTED] = 4, STARTED_NS + 1
    assert list(reader.in_progress()) == [(0, STARTED_NS + 1, {})]  # of an older iteration


@pytest.mark.parametrize(
    "memory",
    [
        lambda: HandMadeMemory(magic=0),
        lambda: HandMadeMemory(version=layout.VERSION + 1),
        lambda: HandMadeMemory(size=layout.PAGE),
    ],
    ids=["foreign", "newer", "small"],
)
def test_a_foreign_memory_is_refused(memory: Callable[[], HandMadeMemory]) -> None:
    descriptor = os.dup(memory().fd)
    with pytest.raises(NotObservable, match="version"):
        MemoryReader.of(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)  # it was closed all the same


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_survived(seed: int) -> None:
    """A header that passes, and noise everywhere else: nonsense may be read, nothing may be raised."""
    memory, noise = HandMadeMemory(), random.Random(seed)
    memory.bytes[8 * layout.H_RING_HEAD : layout.HANDLERS_AT + 20 * layout.HANDLER_BYTES] = noise.randbytes(
        layout.HANDLERS_AT + 20 * layout.HANDLER_BYTES - 8 * layout.H_RING_HEAD
    )
    memory.bytes[layout.RING_AT :] = noise.randbytes(layout.SIZE - layout.RING_AT)
    memory.cells[layout.H_RING_TAIL] = max(0, memory.cells[layout.H_RING_HEAD] - noise.randrange(2000))
    reader = memory.reader()
    list(reader.loops())
    list(reader.records())
    list(reader.in_progress())
    list(reader.handler_counts())
    reader.handler(3)
    assert isinstance(reader.error, str)


def test_a_loop_without_a_name_is_left_out_until_nobody_can_name_it() -> None:
    memory = HandMadeMemory()
    memory.loop(identity=b"\0", counts={5: 7})
    reader = memory.reader()
    assert list(reader.loops()) == []
    (slot,) = reader.loops(nameless=True)
    assert (slot.kind, slot.name, dict(slot.fresh)) == ("epoll", "", {5: 7})
