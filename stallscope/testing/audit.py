"""Blocking calls on a loop's thread, however fast, by Python's own audit events.

An audit hook (PEP 578) is called in the very frame that makes the call, before it is made: so place and stack are
exact, its duration is not known.  It costs nothing where nothing is audited, works with any loop, and needs nothing
compiled.  What has no audit event is not seen: reads, writes, stat, locks, and ``time.sleep`` before CPython 3.11.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from asyncio import _get_running_loop
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import LOCK_NB
from os import fsdecode
from types import CodeType, FrameType
from typing import Any

from stallscope.analysis.sites import owner
from stallscope.recording.nouns import Call, CallSite, Frame, Resource, ResourceKind, Stack

DEPTH = 64
MOST_PLACES = 4096
UNSEEN = "outside of stalls: reads, writes, stat and locks, and how long blocking calls took"
WHY_UNSEEN = "blocking calls of this session are known by Python's audit events, which have none of these"

Told = Callable[[tuple[Any, ...]], "str | None"]
"""From an event's arguments: the name of the resource; None where this call cannot block."""
Hook = Callable[[str, "tuple[Any, ...]"], None]
_Place = tuple[CodeType, int]


@dataclass(slots=True)
class Heard:
    """A place that made a blocking call."""

    call: Call
    stack: Stack
    places: list[_Place]
    """Held, so that no other code gets the identity of these."""
    hits: int = 0


def _first(args: tuple[Any, ...]) -> str | None:
    """A path; None for a descriptor that is open already."""
    return None if isinstance(args[0], int) else fsdecode(args[0])


def _connected(args: tuple[Any, ...]) -> str | None:
    connection, address = args
    if connection.gettimeout() == 0:
        return None
    return ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)


def _locked(args: tuple[Any, ...]) -> str | None:
    return None if args[1] & LOCK_NB else f"fd {args[0]}"


def _slept(args: tuple[Any, ...]) -> str | None:
    return f"{args[0]} s" if args[0] > 0 else None


EVENTS: dict[str, tuple[str, ResourceKind, Told]] = {
    "open": ("open", "path", _first),
    "os.listdir": ("getdents64", "path", lambda args: str(args[0])),
    "os.scandir": ("getdents64", "path", lambda args: str(args[0])),
    "os.mkdir": ("mkdir", "path", _first),
    "os.rmdir": ("rmdir", "path", _first),
    "os.remove": ("unlink", "path", _first),
    "os.rename": ("rename", "path", _first),
    "os.link": ("link", "path", _first),
    "os.symlink": ("symlink", "path", _first),
    "os.truncate": ("truncate", "path", _first),
    "os.fork": ("fork", "child", lambda args: ""),
    "os.posix_spawn": ("posix_spawn", "child", _first),
    "os.system": ("system", "child", _first),
    "subprocess.Popen": ("posix_spawn", "child", lambda args: str(args[0])),
    "sqlite3.connect": ("open", "path", _first),
    "socket.connect": ("connect", "peer", _connected),
    "socket.getaddrinfo": ("getaddrinfo", "host", lambda args: str(args[0])),
    "socket.gethostbyname": ("getaddrinfo", "host", lambda args: str(args[0])),
    "socket.gethostbyaddr": ("getnameinfo", "host", lambda args: str(args[0])),
    "fcntl.flock": ("flock", "path", _locked),
    "fcntl.lockf": ("flock", "path", _locked),
    "time.sleep": ("clock_nanosleep", "timer", _slept),
    "ctypes.dlopen": ("dlopen", "path", _first),
}


class Audit:
    """Hears blocking calls from `start` on; a hook cannot be taken back, but `stop` makes it deaf."""

    def __init__(self) -> None:
        self.known: dict[tuple[Any, ...], Heard] = {}
        self._fresh: dict[int, Heard] = {}
        self._deaf = True
        self._busy: set[int] = set()

    def start(self, listen: Callable[[list[str], Hook], bool]) -> None:
        """Begin to listen, by ``listen`` if that can call a hook for some events alone."""
        self._deaf = False
        hook = _hook_of(self)
        if not listen(list(EVENTS), hook):
            sys.addaudithook(hook)

    def stop(self) -> None:
        """Listen no more."""
        self._deaf = True

    def look(self) -> list[Heard]:
        """The places heard since the last look."""
        fresh, self._fresh = self._fresh, {}
        return list(fresh.values())

    @staticmethod
    def counted() -> set[str]:
        """Names of the calls that it hears wherever they are made."""
        return {name for name, _, _ in EVENTS.values()}

    def call_sites(self, process_id: int) -> list[CallSite]:
        """Every place heard, for a recording; durations are not known, and said to be missing."""
        return [CallSite(process_id, None, one.call, one.stack, one.hits, 0, 0) for one in self.known.values()]

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """An event of `EVENTS`, on a thread whose loop runs."""
        me = get_ident()
        if self._deaf or me in self._busy:
            return  # a path's own __fspath__, say, may open a file
        self._busy.add(me)
        try:
            self._hear(EVENTS[event], args)
        except Exception:  # what is raised here would be raised in the program's call
            self._deaf = True
        finally:
            self._busy.discard(me)

    def _hear(self, told: tuple[str, ResourceKind, Told], args: tuple[Any, ...]) -> None:
        name, kind, resource_of = told
        resource = resource_of(args)
        places = _places(sys._getframe(3)) if resource is not None else None
        if resource is None or places is None:
            return
        key = (name, *((id(code), line) for code, line in places))
        heard = self.known.get(key)
        if heard is None:
            if len(self.known) >= MOST_PLACES:
                return
            stack = tuple(Frame(code.co_filename, line, _name_of(code)) for code, line in places)
            heard = self.known[key] = Heard(Call(name, Resource(kind, resource)), stack, places)
        heard.hits += 1
        self._fresh[id(heard)] = heard


def _hook_of(audit: Audit) -> Hook:
    """What the interpreter calls for every event there is, some hundred a test, most of them none of ours.

    A function, and no bound method: before each call CPython asks the hook for ``__cantrace__``, and a bound method's
    answer, an AttributeError that is raised and dropped, took three times as long as all the rest.
    """
    events, hear, running_loop = EVENTS, audit.hear, _get_running_loop

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in events and running_loop() is not None:  # most files are opened while none runs
            hear(event, args)

    return hook


def _places(frame: FrameType | None) -> list[_Place] | None:
    """The frames from the call down to the loop's; None where the loop itself, an import or a traceback made it."""
    places: list[_Place] = []
    while frame is not None and len(places) < DEPTH:
        code = frame.f_code
        if "importlib" in code.co_filename or code.co_filename.endswith(("/linecache.py", "/tokenize.py")):
            return None
        if owner(code.co_filename) == "asyncio":
            return places if any(owner(code.co_filename) in ("user", "package") for code, _ in places) else None
        places.append((code, frame.f_lineno or 0))
        frame = frame.f_back
    return places


def _name_of(code: CodeType) -> str:
    return getattr(code, "co_qualname", code.co_name)
