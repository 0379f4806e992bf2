"""Makes the main thread of a running CPython run a piece of source, from a process of its own.

That process has its own session and blocks signals: Ctrl-C and a closing terminal do not reach it
half way. It may be killed at any moment all the same (``ptrace`` says why).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from stallscope.attach import elf, machine
from stallscope.attach.facts import Facts
from stallscope.attach.machine import FUNCTIONS, RECORD, SOURCE_PAGE, Places, Stopped
from stallscope.attach.ptrace import RefusedError, Thread
from stallscope.errors import NotObservable

_CALLS_PENDING = {"Py_MakePendingCalls", "_PyEval_MakePendingCalls"}
_PENDING = {"Py_AddPendingCall", "_PyEval_AddPendingCall", "make_pending_calls", "_make_pending_calls"} | _CALLS_PENDING
_NEAR = 8192  # a static function of the same source file stands no further from them
_TRIES = 200
_PAUSE_S = 0.002  # between two tries
_RETURN_S = 1.0  # how long the way round is watched for its end


@dataclass(frozen=True, slots=True)
class Injected:
    """How it went: ``pause_ns`` from the request to stop until the thread was where it had been.

    ``waited_ns`` of it, at most, the thread was ready and had no processor: that is the machine's doing. It is
    counted until we look, so it says little of a thread that computes on a busy machine.
    """

    queued: bool
    pause_ns: int
    waited_ns: int
    tries: int


class Plan:
    """Everything that is found before the target is stopped. Raises NotObservable when something is missing."""

    def __init__(self, facts: Facts, source: bytes) -> None:
        self.pid = pid = facts.pid
        self.maps = elf.mappings(pid)
        by_path, python = facts.modules, facts.python
        if python is None:
            raise NotObservable(
                f"process {pid} is no CPython, or a static one without symbols: attach is impossible; "
                "use stallscope run"
            )
        functions = _functions(pid, python, by_path)
        self.machine = machine.this_machine()
        code_at = _slack(pid, by_path, self.maps, python, executable=True, size=len(self.machine.code))
        record_at = _slack(pid, by_path, self.maps, python, executable=False, size=RECORD.size)
        if len(source) >= SOURCE_PAGE:
            raise ValueError(f"a source of {len(source)} bytes is more than the page that a queued one has")
        self.places = Places(code_at, record_at, functions, source + b"\0")
        self.loader = [m for m in self.maps if os.path.basename(m.path).startswith(("ld-", "ld."))]
        self.pending = _with_pending_lock(python, self.machine)

    def ran(self) -> None:
        """The queued source has run: its page may be used again. Until then a second one would cut into the first."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(self.places.record_at)
            page = RECORD.unpack(memory.read(RECORD.size))[1]
            if page:
                memory.seek(page)
                memory.write(b"\0")


def _with_pending_lock(python: elf.Module, cpu: machine.Machine) -> list[tuple[int, int]]:
    """[low, high) of each function in which the interpreter takes the lock of its pending calls, CPython 3.8 to 3.15.

    The one that makes the calls has no name in a stripped program: there it is one that the exported functions call.
    """
    found = python.elf.symbols(_PENDING)
    spans = [(value, value + max(size, 64)) for value, size in found.values()]
    if "make_pending_calls" not in found:
        for name in _CALLS_PENDING & set(found):
            low, size = found[name]
            targets = cpu.targets(low, python.elf.bytes_at(low, size))
            spans += [
                python.elf.function_at(at) for at in targets if abs(at - low) < _NEAR and not low <= at < low + size
            ]
    return [(low + python.bias, high + python.bias) for low, high in spans]


def _functions(pid: int, python: elf.Module, by_path: Mapping[str, list[elf.Mapped]]) -> dict[str, int]:
    found = dict(python.addresses([*FUNCTIONS, "_Py_IsFinalizing"]))
    found.setdefault("Py_IsFinalizing", found.get("_Py_IsFinalizing", 0))
    for path, maps in by_path.items():
        if os.path.basename(path).startswith(("libc.so", "libc-", "ld-musl")):
            libc = elf.module_of(pid, path, maps)
            found.update(libc.addresses(["__errno_location"]) if libc else {})
    missing = [name for name in (*FUNCTIONS, "__errno_location") if not found.get(name)]
    if missing:
        raise NotObservable(
            f"process {pid} has no {missing[0]} ({python.path}): attach is impossible; use stallscope run"
        )
    return found


def _slack(
    pid: int, by_path: Mapping[str, list[elf.Mapped]], maps: list[elf.Mapped], python: elf.Module, *,
    executable: bool, size: int,
) -> int:  # fmt: skip
    """The interpreter's own slack, or where it has too little, libc's or libm's (not the loader's: its allocator's)."""
    others = [path for path in by_path if os.path.basename(path).startswith(("libc.so", "libc-", "libm.", "libm-"))]
    for path in [python.path, *others]:
        module = python if path == python.path else elf.module_of(pid, path, by_path[path])
        low, high = module.slack(executable=executable) if module else (0, 0)
        if high - low >= size and elf.is_mapped(maps, low, high, "rx" if executable else "rw"):
            return low
    raise NotObservable(f"process {pid} has no room for {size} bytes of code behind its libraries; use stallscope run")


class _Target:
    """The target's memory, and the tries to turn its main thread aside."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._memory = os.open(f"/proc/{plan.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._queue_only = False
        self._maps = plan.maps

    def inject(self) -> Injected:
        """Try until the source runs, or is queued. Raises RefusedError."""
        for tries in range(1, _TRIES + 1):
            self._maps = elf.mappings(self._plan.pid)
            waited_ns = _run_delay_ns(self._plan.pid)
            with Thread(self._plan.pid) as thread:
                thread.stop()
                queued = self._turn_aside(thread)
                asked = thread.asked_ns
            if queued is not None:
                status, ended = self._outcome()
                if status in (0, machine.DONE, machine.QUEUED):
                    pause_ns, waited_ns = max(ended - asked, 0), _run_delay_ns(self._plan.pid) - waited_ns
                    return Injected(queued, pause_ns, min(waited_ns, pause_ns), tries)
                self._heed(status)
            time.sleep(_PAUSE_S)
        raise RefusedError("its main thread was at no point where Python may run")

    def _turn_aside(self, thread: Thread) -> bool | None:
        """Whether the source will be queued (or run at once); None when this is no place for either."""
        cpu, places, stopped = self._plan.machine, self._plan.places, thread.look()
        now = stopped.registers
        call = cpu.call_of(now, self._read)
        in_loader = any(m.low <= now[cpu.pc] < m.high for m in self._plan.loader)
        queue = self._queue_only or call is None or call in cpu.not_here or in_loader
        if (
            call in cpu.leaving
            or (call is None and stopped.is_wide)
            or (queue and self._in_pending(stopped))
            or not self._has_stack(stopped)
        ):
            return None
        page = self._free_page() if queue else 0
        resume = cpu.resume(now, call)
        if queue and call == cpu.futex:  # the interpreter must look: a wait for a lock is made to report EINTR
            resume = cpu.interrupted(now, self._read) or resume
        turn = cpu.turn(places, stopped, resume, queue=queue, page=page)
        os.pwrite(self._memory, cpu.code, places.code_at)
        os.pwrite(self._memory, bytes(8), places.record_at)
        os.pwrite(self._memory, turn.stack, turn.stack_at)
        thread.set_registers(turn.registers)
        return queue

    def _outcome(self) -> tuple[int, int]:
        """(status, end in ns); the status is 0 when the way round takes long: it waits for the GIL, say."""
        limit = time.monotonic() + _RETURN_S
        while True:
            status, _, seconds, rest = self._record()
            if status or time.monotonic() > limit:
                return status, seconds * 1_000_000_000 + rest if status else time.monotonic_ns()
            time.sleep(0.0002)

    def _heed(self, status: int) -> None:
        if status == machine.ABSENT:
            raise RefusedError("its interpreter is only starting, or already ending")
        if status == machine.NO_MEMORY:
            raise RefusedError("it cannot get another page of memory")
        self._queue_only = self._queue_only or status == machine.HELD

    def _record(self) -> tuple[int, ...]:
        return RECORD.unpack(os.pread(self._memory, RECORD.size, self._plan.places.record_at))

    def rehearse(self) -> None:
        """What will be done while the thread is stopped, once without it: the child's pages are its own then."""
        cpu, at = self._plan.machine, self._plan.places.record_at
        nothing = Stopped({**dict.fromkeys(cpu.fields, 1 << 32), cpu.sp: at, cpu.pc: at}, bytes(4096), bytes(8))
        self._in_pending(nothing)
        self._has_stack(nothing)
        self._free_page()
        call = cpu.call_of(nothing.registers, self._read)
        cpu.turn(self._plan.places, nothing, cpu.resume(nothing.registers, call), queue=False, page=0)

    def _read(self, at: int, size: int) -> bytes:
        return os.pread(self._memory, size, at)

    def _has_stack(self, stopped: Stopped) -> bool:
        """Whether enough of the stack is mapped below the stack pointer: a write from outside does not make it grow.

        On another stack, a signal handler's say, what lies below may be anybody's.
        """
        stack = [mapping for mapping in self._maps if mapping.path == "[stack]"]
        cpu, top = self._plan.machine, stopped.registers[self._plan.machine.sp]
        return elf.is_mapped(stack, top - cpu.room(self._plan.places, len(stopped.extended)), top, "rw")

    def _free_page(self) -> int:
        """The page of an earlier queued source that was run to its end; 0 when there is none."""
        page = self._record()[1]
        if not page or not elf.is_mapped(self._maps, page, page + SOURCE_PAGE, "rw"):
            return 0
        return 0 if os.pread(self._memory, 1, page) != b"\0" else page

    def _in_pending(self, stopped: Stopped) -> bool:
        """Whether the thread may hold the lock of the pending calls, for which ``Py_AddPendingCall`` would wait for
        ever: it is adding one, or making them (where another would not be made before these are done, anyway)."""
        cpu, now = self._plan.machine, stopped.registers
        words = self._read(now[cpu.sp], 1024)
        held = (int.from_bytes(words[at : at + 8], "little") for at in range(0, len(words), 8))
        return any(low <= word < high for word in (now[cpu.pc], *held) for low, high in self._plan.pending)


def _run_delay_ns(pid: int) -> int:
    """For how long the main thread has waited for a processor, ever; 0 where the kernel does not count it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/schedstat") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def inject(plan: Plan) -> Injected:
    """Turn the main thread aside, from a child process of ours. Raises NotObservable with the reason."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _as_injector(plan, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        told = json.loads(answer.read() or b"{}")
    _, status = os.waitpid(child, 0)
    if "pause_ns" in told:
        return Injected(**told)
    why = told.get("refused") or f"the injector ended without an answer (status {status:#x}); the target goes on"
    raise NotObservable(f"process {plan.pid} cannot be attached to now: {why}")


def _as_injector(plan: Plan, writing: int) -> None:
    """The child: never returns."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        gc.disable()
        target = _Target(plan)
        target.rehearse()
        with contextlib.suppress(PermissionError):  # for some milliseconds: the stopped target must not wait for us
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        answer: dict[str, object] = asdict(target.inject())
    except RefusedError as refused:
        answer = {"refused": str(refused)}
    except BaseException as error:
        answer = {"refused": f"{type(error).__name__}: {error}"}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)
