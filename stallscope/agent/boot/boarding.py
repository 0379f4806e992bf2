"""Brings the agent aboard a process that already runs, in a thread of its own, started by ``bootstrap``.

Nothing is imported from disk: every module's code was compiled for this interpreter and came along in the box.
The program waits for the interpreter's lock while we hold it; so the work is cut into pieces, and between two of
them the thread sleeps. The longest piece is what the program may notice, and is reported.

The box is a file in memory that both sides write. Byte 0 says how far it has come:

== ============================================================================================
1  filled: from byte 4096 on lies the payload, marshalled {name: what ``bootstrap`` and we read}
2  ours: the shared memory's descriptor is offered
3  theirs: it has been taken
4  ours: the end; the words say how it went
== ============================================================================================

The words of 2 and 4 are the repr of a dict: their length in bytes 8 to 15, then they themselves.
"""

from __future__ import annotations

import os
import sys
from marshal import loads
from time import monotonic_ns, sleep, thread_time_ns

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Tuple

_NAME = "_stallscope_agent"
_LATE_ANNOTATIONS = 0x1000000  # __future__.annotations.compiler_flag, since 3.8
_REST_S = 0.0005
_PATIENCE_NS = 10_000_000_000  # the collector writes to its disk first, which may be busy for seconds
_OFFERED, _TAKEN, _ENDED = b"\2", b"\3", b"\4"
_SILENCE_NS = 3_000_000_000  # an owner that we cannot see is alive as long as it drains


class _Pieces:
    """Cuts the work, and keeps the length of the longest piece in ns, at first that of what came before.

    A piece is as long as the thread had the interpreter's lock, or may have had it. System calls give that up, and a
    program that computes has it back after 5 ms at the earliest: meanwhile we sleep and it runs, which is no pause. So
    of a piece that seems long only what the thread ran counts, and for how long it was ready to run and had no
    processor; all of it, where it had to wait for the disk.
    """

    def __init__(self, before_ns: int) -> None:
        self.longest_ns = self.most_ran_ns = before_ns  # the latter with a processor throughout
        self._waits = _waits()
        self._begun, self._ran_ns = monotonic_ns(), thread_time_ns()

    def rest(self, wait_s: float = _REST_S) -> None:
        """Let the program run."""
        self._end()
        sleep(wait_s)
        self._begun, self._ran_ns = monotonic_ns(), thread_time_ns()

    def freely(self, work: Callable[[], Any]) -> Any:
        """Do what gives up the interpreter's lock for nearly all of its time: it is no piece."""
        self._end()
        done = work()
        self._begun, self._ran_ns = monotonic_ns(), thread_time_ns()
        return done

    def _end(self) -> None:
        length_ns, ran_ns = monotonic_ns() - self._begun, thread_time_ns() - self._ran_ns
        self.most_ran_ns = max(self.most_ran_ns, min(length_ns, ran_ns))
        if length_ns > self.longest_ns:
            self.longest_ns = max(self.longest_ns, min(length_ns, self._held_ns(length_ns, ran_ns)))

    def _held_ns(self, length_ns: int, ran_ns: int) -> int:
        before, self._waits = self._waits, _waits()
        if before is None or self._waits is None or before[1] != self._waits[1]:
            return length_ns
        return ran_ns + self._waits[0] - before[0]


def _waits() -> Optional[Tuple[int, int]]:
    """For how long this thread was ready and had no processor, in ns; and its page faults that read from a disk."""
    try:
        schedstat, stat = _read("/proc/thread-self/schedstat"), _read("/proc/thread-self/stat")
        return int(schedstat.split()[1]), int(stat.rpartition(b")")[2].split()[9])
    except (OSError, ValueError, IndexError):
        return None


def _read(path: str) -> bytes:
    """Of the program's own ``open`` nobody knows what it does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def board(box: int, running: Tuple[Any, int, int], before_ns: int) -> None:
    """Start the agent with what the box holds; ``running``: the main thread's loop, identity and number."""
    given, inode, pieces = globals(), os.fstat(box).st_ino, _Pieces(before_ns)
    try:
        said = _come_aboard(given, box, running, pieces)
    except BaseException as error:  # whatever it is, it must not reach the program
        _remove()
        said = {"error": "%s: %s" % (type(error).__name__, error)}
    pieces.rest(0.0)
    said["longest_ns"], said["most_ran_ns"] = pieces.longest_ns, pieces.most_ran_ns
    try:
        if os.fstat(box).st_ino == inode:  # a program that closes all descriptors may have a file of its own there
            _say(box, said, _ENDED)
            os.close(box)
    except OSError:
        pass


def _come_aboard(given: Dict[str, Any], box: int, running: Any, pieces: _Pieces) -> Dict[str, Any]:
    owner = _owner_of_another()
    if owner is not None:
        return {"owner": owner}
    _remove()
    pieces.rest()
    before = set(sys.modules)
    _import_for_later()
    pieces.rest()
    _load(given["agent"], pieces)
    brought = [name for name in list(sys.modules) if name not in before and not name.startswith(_NAME)]
    library = _library(given.get("pulse"))
    path = library and "/proc/self/fd/%d" % library
    config = dict(given["config"], brought=brought, running=running, pulse=path)
    config["rest"], config["freely"] = pieces.rest, pieces.freely
    config["hand_over"] = lambda memory, greeting: _hand_over(box, memory.fd, greeting, pieces)
    pieces.rest()
    agent = sys.modules[_NAME].start(config)
    if library:
        os.close(library)
    if agent.alive[0]:
        return {"ok": True}
    sys.modules[_NAME + ".leaving"].forget_modules(brought)
    return {"error": "nobody took its memory over"}


def _import_for_later() -> None:
    """What the agent imports as it works: here, so that it is known to have come for our sake."""
    import _socket  # noqa: F401


def _owner_of_another() -> Optional[int]:
    """The process number of the stallscope that observes us already, 0 for one that we cannot see; None for none.

    An agent that a fork left with us, or whose owner is dead, is taken off.
    """
    agent = getattr(sys.modules.get(_NAME), "_agent", None)
    if agent is None:
        return None
    if not agent.alive[0]:
        agent.shed()
        return None
    owner: int = agent.owner_pid
    silence_ns = monotonic_ns() - agent.heartbeat_ns()
    if os.path.exists("/proc/%d" % owner) if owner else silence_ns < _SILENCE_NS:
        return owner
    agent.stop("another stallscope took over")
    return None


def _remove() -> None:
    for name in [name for name in list(sys.modules) if name == _NAME or name.startswith(_NAME + ".")]:
        del sys.modules[name]


def _load(codes: Dict[str, Tuple[str, Any]], pieces: _Pieces) -> None:
    """Run the modules, each after those that it imports: without finders, specs and locks it takes half the time."""
    for name, (path, code) in codes.items():
        module = sys.modules[name] = type(sys)(name)
        module.__file__, module.__package__ = path, _NAME
        if name == _NAME:
            module.__path__ = [os.path.dirname(path)]
        else:
            setattr(sys.modules[_NAME], name.rpartition(".")[2], module)
        for part in code if isinstance(code, list) else [code]:
            exec(
                compile(part, path, "exec", _LATE_ANNOTATIONS) if isinstance(part, str) else loads(part),
                module.__dict__,
            )
            pieces.rest()


def _library(data: Optional[bytes]) -> Optional[int]:
    """The descriptor of a file in memory with the pulse's library; None where there is no such library.

    It is the same number each time, as a rule, and so the same path: the loader then finds the library of the time
    before, which cannot be unloaded, and loads no second one.
    """
    if data is None or not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("stallscope-pulse", os.MFD_CLOEXEC)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    moved: int = sys.modules[_NAME + ".descriptors"].moved_up(descriptor)
    return moved


def _hand_over(box: int, memory: int, greeting: str, pieces: _Pieces) -> Optional[str]:
    """Offer the shared memory's descriptor, and wait until it is taken; None, or why it was not."""
    _say(box, {"memory": memory, "greeting": greeting}, _OFFERED)
    limit = monotonic_ns() + _PATIENCE_NS
    while monotonic_ns() < limit:
        pieces.rest()
        if os.pread(box, 1, 0) == _TAKEN:
            return None
    return "nobody took the memory over"


def _say(box: int, said: Dict[str, Any], turn: bytes) -> None:
    words = repr(said).encode("utf-8", "replace")[:4000]
    os.pwrite(box, len(words).to_bytes(8, "little") + words, 8)
    os.pwrite(box, turn, 0)  # last: they are whole when they are seen
