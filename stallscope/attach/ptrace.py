"""One thread under ptrace, by ctypes: stopped, looked at, turned aside, let go (ptrace(2)).

The order of things keeps the thread safe from our own death: everything that is written goes where
nobody looks, then *one* call sets the registers, and the thread is let go. The kernel lets go of it
too when we are killed: before that call it goes on as if nothing had been, after it, it runs the
trampoline to its end. What failed: calling functions one after the other under ptrace: a thread
whose tracer is killed in between returns into nowhere.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from struct import Struct

from stallscope.attach.machine import Registers, Stopped, this_machine

_GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT, _CONT, _DETACH, _GETSIGMASK = 0x4204, 0x4205, 0x4206, 0x4207, 7, 17, 0x420A
_PRSTATUS = 1
_ALL_THREADS = 0x40000000  # __WALL
_EVENT_STOP = 128
_EXTENDED_MAX = 1 << 16
_MASK_BYTES = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class RefusedError(Exception):
    """The thread could not be stopped or turned aside; its text says why."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, tid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _where(tid: int) -> str:
    """The kernel's name of what a thread waits in, for a sentence."""
    try:
        with open(f"/proc/{tid}/wchan") as file:
            name = file.read()
    except OSError:
        return ""
    return f" ({name}: a disk or a file system that does not answer, often)" if name not in ("0", "") else ""


class Thread:
    """A seized thread. Use as a context manager: at the end it is let go, whatever happened."""

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._stopped = False
        self._machine = this_machine()
        self._general = Struct(f"<{len(self._machine.fields)}Q")
        self.asked_ns = 0  # when the latest stop was asked for, on CLOCK_MONOTONIC
        self._room = bytearray(b"\1" * _EXTENDED_MAX)  # pages that are there before the thread is stopped
        self._room_at = ctypes.addressof((ctypes.c_char * _EXTENDED_MAX).from_buffer(self._room))

    def __enter__(self) -> Thread:
        _ptrace(_SEIZE, self._tid)
        return self

    def __exit__(self, *error: object) -> None:
        if self._stopped:
            self.let_go()

    def stop(self, limit_s: float = 2.0) -> None:
        """Stop the thread. Raises RefusedError when it does not stop, is stopped by job control, or ends."""
        self.asked_ns = time.monotonic_ns()
        _ptrace(_INTERRUPT, self._tid)
        number, event = self._wait(limit_s)
        while event != _EVENT_STOP:  # a signal is on its way: it is the program's
            self._go_on(number)
            number, event = self._wait(limit_s)
        if number != signal.SIGTRAP:
            raise RefusedError("it is stopped by job control: send SIGCONT first")

    def go_on(self) -> None:
        """Let the stopped thread run, still seized."""
        self._go_on(0)

    def let_go(self) -> None:
        """Detach from the stopped thread: it runs on by itself."""
        self._stopped = False
        _ptrace(_DETACH, self._tid)

    def registers(self) -> Registers:
        """General registers of the stopped thread."""
        return dict(
            zip(self._machine.fields, self._general.unpack(self._get(_PRSTATUS, self._general.size)), strict=True)
        )

    def look(self) -> Stopped:
        """All that must be known to turn it aside."""
        mask = ctypes.create_string_buffer(_MASK_BYTES)
        _ptrace(_GETSIGMASK, self._tid, _MASK_BYTES, ctypes.addressof(mask))
        extended = self._get(self._machine.extended, _EXTENDED_MAX)
        return Stopped(self.registers(), extended, mask.raw, self._is_wide(self._machine.wide))

    def _is_wide(self, kind: int | None) -> bool:
        """By the flags in the header of ``struct user_sve_header``, <asm/ptrace.h>; no such set, nothing wide."""
        try:
            return kind is not None and bool(self._get(kind, _EXTENDED_MAX)[12] & 1)
        except OSError:
            return False

    def set_registers(self, registers: Registers) -> None:
        """The one call that turns the thread aside."""
        data = self._general.pack(*(registers[name] for name in self._machine.fields))
        buffer = ctypes.create_string_buffer(data, len(data))
        vector = _Vector(ctypes.addressof(buffer), len(data))
        _ptrace(_SETREGSET, self._tid, _PRSTATUS, ctypes.addressof(vector))

    def _get(self, kind: int, room: int) -> bytes:
        vector = _Vector(self._room_at, room)
        _ptrace(_GETREGSET, self._tid, kind, ctypes.addressof(vector))
        return bytes(memoryview(self._room)[: vector.length])

    def _go_on(self, number: int) -> None:
        self._stopped = False
        _ptrace(_CONT, self._tid, 0, number)

    def _wait(self, limit_s: float) -> tuple[int, int]:
        """(signal, event) of the next stop, within a limit: a thread in state D does not stop.

        Waits for SIGCHLD, which the injector has blocked, and looks every millisecond besides. What failed: looking
        without a pause, which takes from the target the very processor that it was to stop on.
        """
        limit = time.monotonic() + limit_s
        while True:
            found, status = os.waitpid(self._tid, _ALL_THREADS | os.WNOHANG)
            if found:
                break
            if time.monotonic() > limit:
                raise RefusedError(f"its main thread is in an uninterruptible wait{_where(self._tid)}; try again later")
            signal.sigtimedwait({signal.SIGCHLD}, 0.001)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            raise RefusedError("it ended")
        self._stopped = True
        return status >> 8 & 0xFF, status >> 16
