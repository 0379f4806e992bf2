"""Waits for a module to be imported, so that the agent imports nothing that the program does not.

What failed: importing asyncio at start-up (50 ms for programs that never use it), and polling
``sys.modules`` from the watchdog (the first iterations went unseen).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Tuple


def when_imported(name: str, then: Callable[[], None]) -> None:
    """Call ``then`` when module ``name`` is ready: now, or right after its import."""
    if name in sys.modules:
        then()
        return
    _finder.wanted.append((name, then))
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def no_longer(then: Callable[[], None]) -> None:
    """Stop waiting; nothing happens if it has been called already."""
    _finder.wanted = [(name, other) for name, other in _finder.wanted if other != then]
    _finder.leave_if_idle()


class _Finder:
    """Finds each wanted module once, by the ordinary path; stands in ``sys.meta_path`` as long as one is wanted."""

    def __init__(self) -> None:
        self.wanted: List[Tuple[str, Callable[[], None]]] = []

    def leave_if_idle(self) -> None:
        """Nothing of ours stays where nobody needs it."""
        if not self.wanted and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        """The ordinary spec, whose loader tells us when the module has run."""
        then = [then for wanted, then in self.wanted if wanted == name]
        if not then:
            return None
        self.wanted = [(wanted, then) for wanted, then in self.wanted if wanted != name]
        self.leave_if_idle()
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "__dict__"):
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            del loader.exec_module
            execute(module)
            for each in then:
                each()

        loader.exec_module = exec_module
        return spec


_finder = _Finder()
