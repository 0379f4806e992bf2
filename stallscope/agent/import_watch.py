"""Waits for a module to be imported, so that the agent imports nothing that the program does not.

What failed: importing asyncio at start-up (50 ms for programs that never use it), and polling
``sys.modules`` from the watchdog (the first iterations went unseen).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Optional


def when_imported(name: str, then: Callable[[], None]) -> None:
    """Call ``then`` when module ``name`` is ready: now, or right after its import."""
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Finder(name, then))


def no_longer(then: Callable[[], None]) -> None:
    """Stop waiting; nothing happens if it has been called already."""
    for finder in list(sys.meta_path):
        if type(finder) is _Finder and finder.then == then:
            sys.meta_path.remove(finder)


class _Finder:
    """Finds one module, once, by the ordinary path, and then is gone from ``sys.meta_path``."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self.then = then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        """The ordinary spec, whose loader tells us when the module has run."""
        if name != self._name:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "__dict__"):
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            del loader.exec_module
            execute(module)
            self.then()

        loader.exec_module = exec_module
        return spec
