"""Brings the agent aboard a process that already runs: what ``stallscope attach`` makes its main thread execute.

Nothing is imported from disk: every module's code was compiled for this interpreter and came along.
"""

from __future__ import annotations

import os
import sys
from time import monotonic_ns

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, Tuple

_NAME = "_stallscope_agent"


def board(config: Dict[str, Any], codes: Dict[str, Tuple[str, Any]], answer_to: str) -> None:
    """Start the agent with this config, from these (path, code or text) by module name, in order.

    The answer is a datagram to the socket ``answer_to``: the repr of a dict with ``ok``, ``owner`` (the pid of another
    that observes it) or ``error``, and ``spent_ns``.
    """
    begun = monotonic_ns()
    try:
        said = _come_aboard(config, codes)
    except BaseException as error:  # whatever it is, it must not reach the program
        _remove()
        said = {"error": "%s: %s" % (type(error).__name__, error)}
    said["spent_ns"] = monotonic_ns() - begun
    _answer(answer_to, said)


def _come_aboard(config: Dict[str, Any], codes: Dict[str, Tuple[str, Any]]) -> Dict[str, Any]:
    present = sys.modules.get(_NAME)
    agent = getattr(present, "_agent", None)
    if agent is not None and agent.alive[0]:
        if os.path.exists("/proc/%d" % agent.owner_pid):
            return {"owner": agent.owner_pid}
        agent.stop("another stallscope took over")
    _remove()
    before = set(sys.modules)
    import _socket  # noqa: F401 (here, so that it is among those that came for our sake)

    _load(codes)
    brought = [name for name in sys.modules if name not in before and not name.startswith(_NAME)]
    agent = sys.modules[_NAME].start(dict(config, brought=brought))
    if agent.alive[0]:
        return {"ok": True}
    sys.modules[_NAME + ".leaving"].forget_modules(brought)
    return {"error": "the collector could not be reached from the process"}


def _remove() -> None:
    for name in [name for name in sys.modules if name == _NAME or name.startswith(_NAME + ".")]:
        del sys.modules[name]


def _load(codes: Dict[str, Tuple[str, Any]]) -> None:
    """Run the modules, each after those that it imports: without finders, specs and locks it takes half the time."""
    for name, (path, code) in codes.items():
        if not name.startswith(_NAME):
            continue
        module = sys.modules[name] = type(sys)(name)
        module.__file__, module.__package__ = path, _NAME
        if name == _NAME:
            module.__path__ = [os.path.dirname(path)]
        else:
            setattr(sys.modules[_NAME], name.rpartition(".")[2], module)
        exec(compile(code, path, "exec") if isinstance(code, str) else code, module.__dict__)


def _answer(to: str, said: Dict[str, Any]) -> None:
    import _socket

    try:
        sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            sender.setblocking(False)
            sender.sendto(repr(said).encode(), to)
        finally:
            sender.close()
    except OSError:  # nobody waits any more
        pass
