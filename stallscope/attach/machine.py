"""What the injector must know of a processor: registers, system calls, and the code that it turns a thread aside to.

``x86_64`` and ``aarch64`` are the two that there are.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

Registers = dict[str, int]
Read = Callable[[int, int], bytes]
"""Takes (address, size), gives bytes of the target's memory."""

DONE, ABSENT, HELD, NO_MEMORY, QUEUED, FULL = 1, 2, 3, 4, 5, 6
"""What the record says at the end: ran; no interpreter, or one that is ending; the GIL was held here; no page to be
had; the call is queued; the queue is full. 0 until then."""

RECORD = Struct("<4Q")
"""The record: status, page of the queued source, seconds and nanoseconds of the end on CLOCK_MONOTONIC."""

FUNCTIONS = (
    "Py_IsInitialized", "Py_IsFinalizing", "PyGILState_Check", "PyGILState_Ensure", "PyRun_SimpleString",
    "PyGILState_Release", "Py_AddPendingCall",
)  # fmt: skip
"""Functions of the interpreter that the code calls, in the order of the block; ``_Py_IsFinalizing`` before 3.13."""

SOURCE_PAGE = 8192
"""Room for a source: the bootstrap's code as a literal takes up to 5,700 bytes."""
_WORD = 1 << 64


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stopped thread is like: general registers, the raw floating point and vector state, blocked signals."""

    registers: Registers
    extended: bytes
    mask: bytes
    is_wide: bool = False
    """Whether there is vector state beyond that (SVE), which the way back would lose."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One prepared way round: ``stack`` goes to ``stack_at``, then ``registers`` are set."""

    stack_at: int
    stack: bytes
    registers: Registers


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in one target: code, record, functions; and the NUL-terminated source that is to run."""

    code_at: int
    record_at: int
    functions: Mapping[str, int]
    source: bytes


class Machine:
    """One processor; its methods take registers and return others, and touch nothing."""

    fields: ClassVar[tuple[str, ...]]
    """The general registers, in the order of the kernel's PRSTATUS set."""
    pc: ClassVar[str]
    sp: ClassVar[str]
    extended: ClassVar[int]
    """The kernel's number of the register set with the floating point and vector state."""
    wide: ClassVar[int | None] = None
    """The register set whose header says whether there is more vector state than that."""
    code: ClassVar[bytes]
    futex: ClassVar[int]
    not_here: ClassVar[frozenset[int]]
    """Calls in which C code may hold a lock of its own (the allocator's, the loader's): Python must not run there."""
    leaving: ClassVar[frozenset[int]]
    """Calls after which the thread is another one, or none: nothing may be done there."""

    def call_of(self, now: Registers, read: Read) -> int | None:
        """The system call that the thread is in; None when it is in code of the program."""
        raise NotImplementedError

    def targets(self, at: int, code: bytes) -> set[int]:
        """The addresses that code at ``at`` may call or jump to directly; some may be none."""
        raise NotImplementedError

    def resume(self, now: Registers, call: int | None) -> Registers:
        """The registers to go on with after the way round. A call that was cut short is made again; one that reports
        EINTR (``epoll_wait``) reports it: programs must cope, and know better how long to go on waiting."""
        raise NotImplementedError

    def interrupted(self, now: Registers, read: Read) -> Registers | None:
        """The registers with which a call that was cut short reports EINTR; None when there is none."""
        raise NotImplementedError

    def room(self, places: Places, extended_bytes: int) -> int:
        """Bytes of stack needed below the stack pointer, what the code's own calls need included."""
        return 16384 + extended_bytes + len(places.source)

    def turn(self, places: Places, stopped: Stopped, resume: Registers, *, queue: bool, page: int) -> Turn:
        """What to write where, and the registers to set, so that the thread takes the way round to ``resume``."""
        raise NotImplementedError


def negative(value: int) -> int:
    """A register's value as the signed number that it stands for."""
    return value - _WORD if value >> 63 else value


def unsigned(value: int) -> int:
    """A signed number as a register holds it."""
    return value % _WORD


def this_machine() -> Machine:
    """The processor that we run on. Raises LookupError for one that is not known."""
    from stallscope.attach.aarch64 import Aarch64
    from stallscope.attach.x86_64 import X8664

    known: dict[str, type[Machine]] = {"x86_64": X8664, "aarch64": Aarch64}
    return known[platform.machine()]()
