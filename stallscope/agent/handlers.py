"""Handler identity: which coroutine or callback a loop is about to run, and its slot.

A handler is known by its code object (or, for callables that have none, by their type or their C
name), never by the callable itself: a strong reference to a closure would keep the user's objects
alive. The dictionary's keys are ids: the hash of a code object is computed anew from all its
names and constants each time.
"""

from __future__ import annotations

from _functools import partial  # type: ignore[import-not-found]
from types import CodeType, CoroutineType, FunctionType, GeneratorType, MethodType

from . import layout, text
from .memory import Memory

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    Key = Any  # CodeType | type | str


_KNOWN_MAX = 16 * layout.HANDLERS  # with a slot or without; who is not among them is identified at each call anew


class HandlerTable:
    """Slots of the handlers seen so far, at most ``layout.HANDLERS``; the others share the first."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._names: Dict[int, str] = {}
        self.bases: Dict[Key, int] = {}
        self._held: List[object] = []  # what the keys identify must not be freed, or its id would be given again
        self._write(0, "(other handlers)", "", 0)
        self._memory.cells[layout.H_HANDLERS] = 1

    def add(self, key: Key, name: str, file: str, line: int) -> int:
        """Give the key a slot; the cell index of its histogram (slot 0's when all are taken)."""
        slot = self._memory.cells[layout.H_HANDLERS]
        if slot < layout.HANDLERS:
            self._write(slot, name, file, line)
            self._memory.cells[layout.H_HANDLERS] = slot + 1
            self._names[self._base(slot)] = name
        else:
            slot = 0
        base = self._base(slot)
        if len(self._held) < _KNOWN_MAX:
            self._held.append(key)
            self.bases[cheap(key)] = base
        return base

    def base_of(self, key: Key, name: str, file: str, line: int) -> int:
        """The cell index of the key's histogram, which is given a slot if it has none yet."""
        base = self.bases.get(cheap(key))
        return base if base is not None else self.add(key, name, file, line)

    def name_of(self, code: CodeType) -> str:
        """Qualified name of a handler by its code, as far as it is known."""
        base = self.bases.get(id(code))
        known = self._names.get(base) if base is not None else None
        return known or str(getattr(code, "co_qualname", code.co_name))

    def slot_of(self, base: int) -> int:
        """Slot number of a histogram's cell index."""
        return (base * layout.CELL - layout.HANDLERS_AT) // layout.HANDLER_BYTES

    def _base(self, slot: int) -> int:
        return (layout.HANDLERS_AT + slot * layout.HANDLER_BYTES + layout.HANDLER_HISTOGRAM_AT) // layout.CELL

    def _write(self, slot: int, name: str, file: str, line: int) -> None:
        at = layout.HANDLERS_AT + slot * layout.HANDLER_BYTES + layout.HANDLER_TEXT_AT
        identity = text.encode({"name": name[:256], "file": file[-1024:], "line": line})
        self._memory.put_text(at, layout.HANDLER_TEXT_BYTES, identity)


STEP_TYPES = ("TaskStepMethWrapper", "TaskWakeupMethWrapper")  # asyncio's C types whose __self__ is a task


# Of a type, without asking a metaclass of the program's.
type_name = type.__dict__["__name__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__


def cheap(key: Key) -> Key:
    """The dictionary key of a handler: its name, or the id of its code or type."""
    return key if isinstance(key, str) else id(key)


def of_coroutine(coroutine: Any) -> Tuple[Key, str, str, int]:
    """(key, qualified name, file, line) of a task's coroutine."""
    kind = type(coroutine)
    code = coroutine.cr_code if kind is CoroutineType else coroutine.gi_code if kind is GeneratorType else None
    if code is None:  # Cython's coroutines and hand-made awaitables: the type is all that is safe to ask
        return kind, _qualname_of(kind), "", 0
    return code, coroutine.__qualname__, code.co_filename, code.co_firstlineno


def of_callback(callback: Any) -> Tuple[Key, str, str, int]:
    """(key, qualified name, file, line) of a plain callback; asks nothing that could run user code."""
    kind = type(callback)
    if callback is None:  # a handle that was cancelled by its own callback has forgotten it
        return "(cancelled while it ran)", "(cancelled while it ran)", "", 0
    while kind is partial or kind is MethodType:
        callback = callback.func if kind is partial else callback.__func__
        kind = type(callback)
    if kind is not FunctionType and type(type.__getattribute__(kind, "__call__")) is FunctionType:
        callback, kind = type.__getattribute__(kind, "__call__"), FunctionType
    if kind is FunctionType:
        code = callback.__code__
        return code, callback.__qualname__, code.co_filename, code.co_firstlineno
    qualname: Optional[str] = getattr(callback, "__qualname__", None) if _module_of(kind) == "builtins" else None
    if isinstance(qualname, str):
        return qualname, qualname, "", 0
    return kind, _qualname_of(kind), "", 0


def base_of(table: HandlerTable, callback: Any, task_type: Any) -> int:
    """The histogram of a handler met for the first time, or of a kind that has no cheap key.

    ``task_type`` is asyncio's where the callback may be a task's step, by its own type (then the task is its
    ``__self__``), else None.
    """
    owner = callback.__self__ if task_type is not None else None
    is_step = owner is not None and isinstance(owner, task_type)
    return table.base_of(*(of_coroutine(task_type.get_coro(owner)) if is_step else of_callback(callback)))
