"""The agent: runs inside the observed process. Standard library only, CPython 3.8 and newer.

It is loaded under one private name, ``_stallscope_agent``, from a directory or a zip, so that
one source serves ``stallscope run``, attach, the API and the tests.
"""

from __future__ import annotations

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

_agent: Optional[Any] = None


def start(config: Dict[str, Any]) -> Any:
    """Come aboard; a second start finds the first. ``config``: see ``aboard.Agent``."""
    global _agent
    if _agent is None or not _agent.aboard():
        from .aboard import Agent

        _agent = Agent(config)
        _agent.start()
    return _agent


def is_aboard() -> bool:
    """Whether this process is observed already."""
    return _agent is not None and bool(_agent.alive[0])


def stop() -> None:
    """Unhook everything and forget."""
    global _agent
    agent, _agent = _agent, None
    if agent is not None:
        agent.stop()
