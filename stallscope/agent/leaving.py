"""The last thing that the agent does in a process it was attached to: it takes its modules with it."""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import List


def forget_modules(brought: List[str]) -> None:
    """Remove the agent's own modules from ``sys.modules``, and those of the library that came only for its sake."""
    package = sys.modules.get(__package__ or "")
    if package is not None:
        package._agent = None  # type: ignore[attr-defined]
    for name in [name for name in list(sys.modules) if (name + ".").startswith(f"{__package__}.")]:
        sys.modules.pop(name, None)
    for name in brought:
        module = sys.modules.get(name)
        if module is not None and not _used(module):
            sys.modules.pop(name, None)


def _used(module: ModuleType) -> bool:
    """Whether a module of the program refers to it by now."""
    others = [other for other in list(sys.modules.values()) if type(other) is ModuleType]
    return any(value is module for other in others for value in list(other.__dict__.values()))
