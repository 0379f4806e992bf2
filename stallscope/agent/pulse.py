"""The pulse (``stallscope/pulse``, a C library) as the agent uses it: how it comes aboard, and what it hands over.

It is loaded as an extension module is, and brings no module into the program that it did not ask for; ``ctypes`` would.
"""

from __future__ import annotations

import sys
from _struct import Struct
from _thread import get_ident, get_native_id
from os import getpid
from time import monotonic_ns
from types import SimpleNamespace

from .stacks import MAX_FRAMES, is_own

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

    from .stacks import Stack

_NAME = "pulse_functions_7"  # the number is that of the format in which both sides speak: see module.c
_UNKNOWN = 2**64 - 1
_STALL, _SEEN = 1, 2
# struct record_head, stall_head, call, tick, part, and what follows the call in struct seen (pulse.h)
RECORD_HEAD = Struct("=2I")
STALL_HEAD = Struct("=6Q4I")
CALL = Struct("=5Qq2I232s")
TICK = Struct("=8QiI")
PART = Struct("=3Q")
WEIGHT = Struct("=2Q")

_KINDS = {
    "f": "path", "s": "peer", "p": "pipe", "l": "lock", "c": "child", "h": "host", "t": "timer", "o": "other",
}  # fmt: skip
_KEPT_STACKS = 1024
_SHORTEST_REST_NS = 1_000_000
_WAY_NS = 100_000  # who waits for the GIL needs so long to wake up
_NO_STACK = (0, (), None)  # type: Tuple[int, Stack, Optional[str]]


class ExactCall:
    """One call, or (``count`` > 1) the sum of many short ones; ``last_ns`` is when the last one ended.

    ``call`` is (name, resource kind, resource, detail), as in ``thread_facts.Facts``.
    """

    __slots__ = ("call", "count", "duration_ns", "last_ns", "stack", "start_ns", "tokens")

    def __init__(self, raw: bytes, at: int, names: List[str]) -> None:
        self.start_ns, self.duration_ns, self.last_ns, token, met_token, argument, hook, self.count, text = (
            CALL.unpack_from(raw, at)
        )
        self.tokens = (met_token, token)  # what was met in the call is of its line; what came after may be of another
        self.call = _described(names[hook], text.split(b"\0", 1)[0].decode("utf-8", "replace"), argument)
        self.stack: Stack = ()


class Tick:
    """The watchdog's look at an overdue iteration: what the thread spent since the look before; None: not known."""

    __slots__ = (
        "answered_ns", "at_ns", "cpu_ns", "from_ns", "late_ns", "run_delay_ns", "stack", "state", "switches",
        "system_call", "token",
    )  # fmt: skip

    def __init__(self, raw: bytes, at: int) -> None:
        self.from_ns, self.at_ns, cpu, delay, switches, self.token, _, _, self.system_call, state = TICK.unpack_from(
            raw, at
        )
        self.cpu_ns, self.run_delay_ns, self.switches = _known(cpu), _known(delay), _known(switches)
        self.state = chr(state) if state else ""
        self.stack: Stack = ()
        self.late_ns = 0  # for how long the interpreter did not answer
        self.answered_ns = self.at_ns


class ExactStall:
    """An iteration over the threshold, as the pulse measured it. ``parts``: (handler's cell index, calls, total_ns).

    ``rest`` is the id of the code in which the loop was run: every handler's frame is right above; 0: not known.
    ``stops``: (after, until, seen) when the whole process was stopped in it, see ``stops``.
    """

    __slots__ = (
        "calls", "cpu_ns", "end_ns", "parts", "rest", "run_delay_ns", "slot_at", "start_ns", "stops", "task", "ticks",
    )  # fmt: skip

    def __init__(self, raw: bytes, at: int, names: List[str]) -> None:
        self.start_ns, self.end_ns, cpu, delay, self.slot_at, self.rest, calls, ticks, parts, _ = (
            STALL_HEAD.unpack_from(raw, at)
        )
        self.cpu_ns, self.run_delay_ns = _known(cpu), _known(delay)
        self.task: Optional[str] = None
        self.stops: List[Tuple[int, int, int]] = []
        at += STALL_HEAD.size
        self.calls = [ExactCall(raw, at + index * CALL.size, names) for index in range(calls)]
        at += calls * CALL.size
        self.ticks = [Tick(raw, at + index * TICK.size) for index in range(ticks)]
        at += ticks * TICK.size
        found = [PART.unpack_from(raw, at + index * PART.size) for index in range(parts)]
        self.parts = [(handler, count, total) for handler, count, total in found if handler]


class SeenCall:
    """A call whose site was asked for; it stands for ``weight`` calls that took ``weight_ns`` together."""

    __slots__ = ("exact", "weight", "weight_ns")

    def __init__(self, raw: bytes, at: int, names: List[str]) -> None:
        self.exact = ExactCall(raw, at, names)
        self.weight, self.weight_ns = WEIGHT.unpack_from(raw, at + CALL.size)


class Pulse:
    """The library at work in this process."""

    def __init__(self, functions: Dict[str, Callable[..., Any]]) -> None:
        self.functions = functions  # the library's own
        self._main = _main_ident()
        self._captured: List[Any] = []  # filled by the library, in the main thread
        self._stacks: Dict[int, Tuple[int, Stack, Optional[str]]] = {}  # by token: late_ns, the stack, the task's name
        self._waiting: List[Any] = []  # seen calls whose stack has not come yet
        self._held: List[ExactStall] = []  # stalls up to whose end the watchdog has not come yet
        self.names: List[str] = functions["names"]()
        self.close = functions["close"]  # the calling thread's loop has ended its run
        self.enter = functions["enter"]  # the calling thread is to run loops: open what that takes
        self.no_loop = functions["no_loop"]  # waits on this descriptor make no loop of a thread
        self.nudge = functions["nudge"]  # end the rest of whoever is in `wait`
        self.last = functions["last"]  # the calling thread's loop will wait once more, and then end its run

    def start(self, memory: Any, threshold_ns: int, wants_sites: bool = True) -> bool:
        """Hook everything; ``memory`` is the shared memory's mapping. False: it could not.

        ``wants_sites``: where blocking calls are made, however short they are, is looked at and given out.
        """
        return not self.functions["start"](memory, threshold_ns, getpid(), self._captured, wants_sites)

    def know_asyncio(self) -> None:
        """Let it name the task that runs when a stack is taken. All that it calls is written in C."""
        import _asyncio

        running, name = getattr(_asyncio, "_get_running_loop", None), getattr(_asyncio.Task, "get_name", None)
        tasks, current = getattr(_asyncio, "_current_tasks", None), getattr(_asyncio, "current_task", None)
        if running is not None and name is not None:
            self.functions["asyncio"](running, tasks if current is None else None, current, name)

    def stop(self) -> None:
        """Put everything back; the library itself stays loaded, and does nothing."""
        self.functions["stop"]()

    def mute(self) -> None:
        """Ask for no more stacks: the interpreter is going down."""
        self.functions["mute"]()

    def listen(self, events: List[str], hook: Callable[[str, Any], None]) -> bool:
        """Have ``hook(event, arguments)`` called for these audit events until ``stop``; False: this Python is too old.

        Other events cost a few nanoseconds each; a hook of ``sys.addaudithook`` would be called for them, too.
        """
        names = b"".join([name.encode() + b"\0" for name in events])
        return "t" not in sys.abiflags and bool(self.functions["listen"](names, hook))

    def wait(self, ns: int, longest_ns: int) -> None:
        """Sleep without the GIL, for ``ns`` or, as long as there is nothing to do, ``longest_ns``.

        The main thread's stack is taken meanwhile, whenever the library wants it. That ends no rest: most iterations of
        which a stack is wanted are no stalls, and a look at everything takes four times as long.
        """
        begun, spent = monotonic_ns(), 0
        is_over = False
        while not is_over:
            rest_ns, longest_rest_ns = max(ns - spent, _SHORTEST_REST_NS), max(longest_ns - spent, 0)
            is_over = self._wait(rest_ns, longest_rest_ns)
            spent = monotonic_ns() - begun
            is_over = is_over or spent >= ns

    def give_way(self) -> None:
        """Let whoever waits for the GIL have it, before work that takes long.

        By a plain ``sleep`` it was tried: whoever took the GIL then, and kept it in C code, was found to compute in
        Python, for his stack was asked for and taken only when we had come back, and then without a wait.
        """
        self._wait(_WAY_NS, _WAY_NS)

    def _wait(self, ns: int, longest_ns: int) -> bool:
        """Whether somebody wants more than the main thread's stack.

        An iteration that has ended before we came says by how late we were whether it let us come.
        """
        token, late_ns, has_ended, is_over = self.functions["wait"](ns, longest_ns)
        if token:
            self._captured.append((token, late_ns, [] if has_ended else self._main_stack(), None))
        return bool(is_over)

    def _main_stack(self) -> List[Any]:
        frame: Any = sys._current_frames().get(self._main)
        flat: List[Any] = []
        while frame is not None and len(flat) < 2 * MAX_FRAMES:
            flat += [frame.f_code, frame.f_lineno]
            frame = frame.f_back
        return flat

    def open(self, slot_at: int, selector: Any, loop: Any, tid: int, running: bool) -> bool:
        """Declare a loop of thread ``tid``: its slot in the shared memory, and how its own wait is told from others.

        That is the descriptor of its epoll, or (poll, select) the one by which other threads wake it.
        """
        waker = getattr(loop, "_ssock", None)
        try:
            epoll, mark = selector.fileno(), -1
        except (AttributeError, ValueError):
            epoll, mark = -1, waker.fileno() if waker is not None else -1
        if epoll < 0 and mark < 0:
            return False
        if tid == get_native_id():
            return not self.functions["open"](slot_at, epoll, mark, running)
        return not self.functions["expect"](tid, slot_at, epoll, mark, running)

    def undeclared(self) -> List[Tuple[int, int, int, str]]:
        """(slot, thread, its identity, path of the waiting object) of each loop that was found by its waits alone."""
        found: List[Tuple[int, int, int, str]] = self.functions["undeclared"]()
        return found

    def holds(self) -> bool:
        """Whether something was taken that could not be given out yet."""
        return bool(self._held or self._waiting)

    def dropped(self) -> int:
        """Stalls whose details found no room."""
        count: int = self.functions["dropped"]()
        return count

    def take(self, all_of_it: bool = False) -> Tuple[List[ExactStall], List[SeenCall]]:
        """What has ended since the last time, with the stacks that were captured.

        After a stop of the whole process a stall may end before the watchdog runs again, which alone knows of it: such
        stalls are held back until then, unless ``all_of_it`` is wanted.
        """
        raws = self.functions["take"]()
        self._gather_stacks()
        stalls = self._held
        seen, self._waiting = self._waiting, []
        for raw in raws:
            for kind, at in _records(raw):
                if kind == _STALL:
                    stalls.append(self._with_stacks(ExactStall(raw, at, self.names)))
                elif kind == _SEEN:
                    seen.append(SeenCall(raw, at, self.names))
        ready, self._held = self._with_stops(stalls, all_of_it)
        return ready, [call for call in seen if self._has_stack(call)]

    def _with_stops(self, stalls: List[ExactStall], all_of_it: bool) -> Tuple[List[ExactStall], List[ExactStall]]:
        """Those that the watchdog has seen the end of, and the others."""
        until, stops = self.functions["stops"]()
        for stall in stalls:
            stall.stops = [stop for stop in stops if stop[0] < stall.end_ns and stop[2] > stall.start_ns]
        ready = [stall for stall in stalls if all_of_it or stall.end_ns <= until]
        return ready, [stall for stall in stalls if not all_of_it and stall.end_ns > until]

    def _gather_stacks(self) -> None:
        count = len(self._captured)
        taken, self._captured[:count] = self._captured[:count], []
        for token, late_ns, flat, task in taken:
            self._stacks[token] = (late_ns, _own_left_out(flat), task if isinstance(task, str) else None)
        while len(self._stacks) > _KEPT_STACKS:
            del self._stacks[next(iter(self._stacks))]

    def _with_stacks(self, stall: ExactStall) -> ExactStall:
        for call in stall.calls:
            call.stack, task = self._answers(call.tokens)
            stall.task = stall.task or task
        for tick in stall.ticks:
            tick.late_ns, tick.stack, task = self._stacks.get(tick.token, _NO_STACK)
            stall.task = stall.task or task
            if not tick.stack:
                tick.stack = next((call.stack for call in stall.calls if _is_within(tick.at_ns, call)), ())
        return stall

    def _has_stack(self, seen: SeenCall) -> bool:
        is_answered = any(token in self._stacks for token in seen.exact.tokens)
        seen.exact.stack, _ = self._answers(seen.exact.tokens)
        if not is_answered and len(self._waiting) < _KEPT_STACKS:
            self._waiting.append(seen)
        return is_answered

    def _answers(self, tokens: Tuple[int, ...]) -> Tuple[Stack, Optional[str]]:
        """The first stack that was taken for these tokens, and the first name of a task."""
        found = [self._stacks.get(token, _NO_STACK) for token in tokens]
        stacks = [stack for _, stack, _ in found if stack]
        return stacks[0] if stacks else (), next((task for _, _, task in found if task), None)


def load(path: str) -> Optional[Pulse]:
    """The library at ``path``, ready to start; None where it cannot be used. Raises nothing."""
    functions = _functions(path)
    return None if functions is None else Pulse(functions)


def main_has_ended() -> bool:
    """Whether the interpreter goes down, and only exit functions run: CPython 3.8 does not bear pending calls then."""
    main = getattr(sys.modules.get("threading"), "_main_thread", None)
    return sys.version_info < (3, 9) and getattr(main, "_is_stopped", False) is True


def _main_ident() -> int:
    """CPython's identity of the main thread."""
    threading: Any = sys.modules.get("threading")
    main = getattr(threading, "_main_thread", None)
    ident = getattr(main, "_ident", None)
    return ident if isinstance(ident, int) else get_ident()


def _functions(path: str) -> Optional[Dict[str, Callable[..., Any]]]:
    """What the library's one entry hands over, in an ImportError; None where there is none of this format.

    The loader knows a library by the path that it was asked for. Where another stallscope left one of another format
    under this path, ours is loaded under one with more slashes.
    """
    for more in ("", "/", "//", "///"):
        try:
            from _imp import create_dynamic  # not in an interpreter that was linked without a loader

            spec: Any = SimpleNamespace(name=_NAME, origin=more + path)
            create_dynamic(spec)
        except ImportError as error:
            if type(error.args[0]) is dict:
                return error.args[0]
        except (MemoryError, SystemError):
            return None
    return None


def _records(raw: bytes) -> Iterator[Tuple[int, int]]:
    """(type, offset of the content) of each record."""
    at = 0
    while at < len(raw):
        size, kind = RECORD_HEAD.unpack_from(raw, at)
        yield kind, at + RECORD_HEAD.size
        at += size


def _own_left_out(flat: List[Any]) -> Stack:
    """(code, line) pairs, innermost first, from alternating codes and lines; without frames of the agent itself."""
    return tuple(
        [
            (flat[index], flat[index + 1] or flat[index].co_firstlineno)
            for index in range(0, len(flat) - 1, 2)
            if not is_own(flat[index])
        ]
    )


def _is_within(at_ns: int, call: ExactCall) -> bool:
    return call.count == 1 and call.start_ns <= at_ns <= call.last_ns and bool(call.stack)


def _known(value: int) -> Optional[int]:
    return None if value == _UNKNOWN else value


def _described(name: str, text: str, argument: int) -> Tuple[str, str, str, str]:
    """(name, resource kind, resource, detail) of a call, from the text that the library made of its arguments."""
    kind, resource = _KINDS.get(text[:1], "other"), text[1:]
    if kind == "child":
        return name, kind, f"pid {argument}" if argument > 0 else "", ""
    if kind == "timer":
        return name, kind, "", f"{argument / 1e9:.3f} s" if argument >= 0 else ""
    return name, kind, resource, f"fd {argument}" if argument >= 0 and kind in ("path", "peer", "pipe", "other") else ""
