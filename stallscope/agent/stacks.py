"""Python stacks, as code objects and lines; turned into names only when a stall is reported."""

from __future__ import annotations

import sys
from types import FrameType

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    Stack = Tuple[Tuple[Any, int], ...]  # (code, line), innermost first

MAX_FRAMES = 64
_OF_THE_LOOP = ("_process_events", "select", "time")  # what _run_once calls besides handlers
_LIBRARIES = ("gevent", "tornado", "trio", "twisted", "uvloop")
_OWN_DIRECTORY = __file__.rsplit("/", 1)[0] + "/"


def walk(frame: Optional[FrameType]) -> Stack:
    """The stack from ``frame`` outward, without frames of the agent itself."""
    stack: List[Tuple[Any, int]] = []
    while frame is not None and len(stack) < MAX_FRAMES:
        code = frame.f_code
        if not is_own(code):
            stack.append((code, frame.f_lineno or code.co_firstlineno))
        frame = frame.f_back
    return tuple(stack)


def is_own(code: Any) -> bool:
    """Whether it is the agent's own code."""
    own: bool = code.co_filename.startswith(_OWN_DIRECTORY)
    return own


def handler_code(stack: Stack) -> Any:
    """Code of the handler in progress: the frame that the loop's own called; None without one.

    That is asyncio's ``Handle._run``, or where the pulse's builtin has its place (which has no frame) ``_run_once``.
    """
    for index, (code, _) in enumerate(stack):
        if code.co_name == "_run" and code.co_filename.endswith("asyncio/events.py"):
            return outermost(stack[:index])
        if code.co_name == "_run_once":
            called = stack[index - 1][0] if index else None
            return outermost(stack[:index]) if called is not None and called.co_name not in _OF_THE_LOOP else None
    return None


def outermost(stack: Stack) -> Any:
    """Code of the outermost frame that is no loop library's; of the very outermost if all are; None of none."""
    libraries = tuple([directory for directory in [_directory(name) for name in _LIBRARIES] if directory])
    for code, _ in reversed(stack):
        if not code.co_filename.startswith(libraries):
            return code
    return stack[-1][0] if stack else None


def _directory(library: str) -> str:
    path = getattr(sys.modules.get(library), "__file__", None)
    return path.rsplit("/", 1)[0] + "/" if isinstance(path, str) and "/" in path else ""


class FrameTable:
    """Frames of one record, each written once; stacks refer to them by index."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._index: Dict[Tuple[int, int], int] = {}  # by the code's id: to hash a code object is to hash all it has
        self.frames: List[List[object]] = []

    def put(self, stack: Stack) -> List[int]:
        """Indices of the innermost ``depth`` frames of a stack."""
        return [self._put(frame) for frame in stack[: self._depth]]

    def _put(self, frame: Tuple[Any, int]) -> int:
        code, line = frame
        index = self._index.get((id(code), line))
        if index is None:
            index = self._index[id(code), line] = len(self.frames)
            name = getattr(code, "co_qualname", code.co_name)
            self.frames.append([code.co_filename[-1024:], line, name])
        return index
