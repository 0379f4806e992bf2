"""``Handle._run`` as a builtin of the pulse's: each handler measured, for less than asyncio's own costs.

What it counts is what ``asyncio_hooks._running`` counts. Where it cannot be had, ``obstacle`` says why, and that
wrapper stays in its place.
"""

from __future__ import annotations

import sys
from _functools import partial  # type: ignore[import-not-found]
from types import (
    BuiltinFunctionType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    SimpleNamespace,
)

from . import handlers

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Set

    from .handlers import HandlerTable

# All that asyncio's own _run refers to, CPython 3.8 to 3.13; ``get_debug`` since 3.13.
_USED_BY_RUN = frozenset(
    [
        "_context",
        "run",
        "_callback",
        "_args",
        "SystemExit",
        "KeyboardInterrupt",
        "BaseException",
        "format_helpers",
        "_format_callback_source",
        "_source_traceback",
        "_loop",
        "call_exception_handler",
    ]
)


def obstacle(functions: Dict[str, Any], run: Any) -> str:
    """Why ``run``, which is now ``Handle._run``, cannot give way to the builtin; empty when it can."""
    from asyncio.events import Handle

    if "runner_on" not in functions:
        return "the pulse has no handler runner"
    if "t" in sys.abiflags:
        return "this Python has no GIL"
    if type(run) is not FunctionType or run.__code__.co_filename != Handle.__init__.__code__.co_filename:
        return "Handle._run was replaced by somebody"
    if frozenset(run.__code__.co_names) - {"get_debug"} != _USED_BY_RUN:
        return "asyncio's Handle._run is not as it was up to CPython 3.13"
    return ""


def put_together(
    functions: Dict[str, Any],
    run: Any,
    table: HandlerTable,
    adopt: Callable[[Any], None],
    failed: Callable[[Any], None],
) -> Optional[Any]:
    """The builtin that takes the place of ``run``; None: the handles are not laid out as we know them.

    ``adopt(loop)`` is called after a handler of a loop that is not observed in this thread, at most once a second for
    the same loop; ``failed(error)`` after an error in here. What they raise the program gets.
    """
    from asyncio.events import Handle, TimerHandle
    from asyncio.tasks import Task

    return functions["runner_on"](
        Handle.__new__(Handle),
        Handle.__basicsize__,
        run,
        SimpleNamespace,
        Handle,
        TimerHandle,
        FunctionType,
        MethodType,
        partial,
        BuiltinFunctionType,
        CoroutineType,
        GeneratorType,
        Task,
        Task.get_coro,
        _identifying(table, failed),
        _adopting(adopt, failed),
    )


def _adopting(adopt: Callable[[Any], None], failed: Callable[[Any], None]) -> Callable[[Any], None]:
    def adopting(loop: Any) -> None:
        try:
            adopt(loop)
        except Exception as error:
            failed(error)

    return adopting


def _identifying(table: HandlerTable, failed: Callable[[Any], None]) -> Callable[[Any], Optional[int]]:
    """What the builtin asks about a callback that it has no key for: the cell index of its histogram; 0: none; None:
    this type is a task's step, to be known by the task from now on."""
    from asyncio.tasks import Task

    steps: Set[Any] = {BuiltinFunctionType}

    def identify(callback: Any) -> Optional[int]:
        try:
            kind = type(callback)
            if kind not in steps and handlers.type_name(kind) in handlers.STEP_TYPES:
                steps.add(kind)
                return None
            return handlers.base_of(table, callback, Task if kind in steps else None)
        except Exception as error:
            failed(error)
            return 0

    return identify
