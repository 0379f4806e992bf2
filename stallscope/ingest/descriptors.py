"""What the file descriptors of a traced process are, rebuilt from the calls that make and close them.

The text of strace and of perf trace is read alike: `openat(AT_FDCWD, "a") = 3` and
`openat(dfd: CWD, filename: "a") = 3`; what `-y` or perf prints behind a descriptor wins over what was rebuilt.

Most descriptors are never asked for.  So what made one is kept as the line has it, and read when it is asked for; and
each has a short history, for a stall is looked into when it is over, and its file may be closed by then.
"""

from __future__ import annotations

import re

from stallscope.recording.nouns import Resource, ResourceKind

STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\.\.\.)?')
DESCRIPTOR = re.compile(r"\s*(?:\w+: )?(-?\d{1,9})(?:<((?:->|[^<>])*)>)?")
"""A descriptor with strace's `-y`/`-yy` annotation, or perf's."""
PAIR = re.compile(r"\[(\d{1,9})(?:<(?:->|[^<>])*>)?, (\d{1,9})")
IPV4 = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([\d.]+)"\)')
IPV6 = re.compile(r'sin6_port=htons\((\d+)\).*?inet_pton\(AF_INET6, "([^"]+)"')
PERF_ADDRESS = re.compile(r"\.family: INET6?, port: (\d+), addr: ([0-9a-fA-F.:]+)")
UNIX = re.compile(r'sun_path=(@?"(?:[^"\\]|\\.)*")|\.family: UNIX, path: ([^ ,}]+)')
TCP_NAME = re.compile(r"(?:TCP|UDP|TCPv6|UDPv6|UDPLITE|SCTP):\[(?:.*->)?(.*)\]$")
UNIX_NAME = re.compile(r'UNIX(?:-\w+)?:\[[^"]*(?:"([^"]*)")?\]$')
ANONYMOUS = re.compile(r"(?:anon_inode:)?\[?(\w+)\]?$")

OPENERS = {"open", "openat", "openat2", "creat"}
SOCKETS = {"socket", "accept", "accept4"}
PAIRS = {"pipe": "pipe", "pipe2": "pipe", "socketpair": "pipe"}
COPIES = {"dup", "dup2", "dup3", "fcntl"}
ANONYMOUS_CALLS = {
    "epoll_create": "epoll", "epoll_create1": "epoll", "eventfd": "eventfd", "eventfd2": "eventfd",
    "timerfd_create": "timerfd", "signalfd": "signalfd", "signalfd4": "signalfd", "inotify_init": "inotify",
    "inotify_init1": "inotify", "memfd_create": "memfd", "pidfd_open": "pidfd", "io_uring_setup": "io_uring",
}  # fmt: skip
MAKERS = {*OPENERS, *SOCKETS, *ANONYMOUS_CALLS}
"""The calls that return a fresh descriptor: `Descriptors.made` must be told of them."""
CHANGES = {*PAIRS, *COPIES, "connect"}
"""The other calls that change what a descriptor is, for `Descriptors.observe`; for close() there is `closed`."""
ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{2}|.)")
C_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f", "a": "\a", "b": "\b"}
KEPT = 1 << 20
"""Descriptors remembered for each process: more than any process may have open."""
HISTORY = 8
"""What a descriptor was before, remembered for each."""
LATEST = 1 << 62

Made = tuple[bytes, bytes, bytes]
"""A call that made a descriptor, unread: name, arguments, and what `-y` printed behind the result."""


class Descriptors:
    """The descriptor table of one process, now and at the positions of the text a little earlier."""

    def __init__(self) -> None:
        self._known: dict[int, list[tuple[int, Resource | Made | None]]] = {}

    def inherit(self, parent: Descriptors) -> None:
        """Take over the table of the process that forked, but for what is known already."""
        self._known = {number: list(history) for number, history in parent._known.items()} | self._known

    def resource(self, text: str, position: int = LATEST) -> tuple[int, Resource | None] | None:
        """The descriptor that `text` begins with, and what it is; None where there is no descriptor."""
        found = DESCRIPTOR.match(text)
        if not found:
            return None
        number = int(found[1])
        named = _annotated(found[2]) if found[2] else None
        if named is None or named.kind == "other":
            named = self._at(number, position) or named
        return number, named

    def made(self, number: int, position: int, made: Made) -> None:
        """A call of MAKERS returned a descriptor, in the line at `position`."""
        self._set(number, position, made)

    def closed(self, number: int, position: int) -> None:
        if number in self._known:
            self._set(number, position, None)

    def observe(self, name: str, arguments: str, result: str, position: int) -> None:
        """Take in one finished call of CHANGES."""
        if name == "connect":
            self._connect(arguments, position)
            return
        returned = DESCRIPTOR.match(result)
        if not returned or int(returned[1]) < 0:
            return
        if name in PAIRS:
            self._pair(arguments, position)
        elif name != "fcntl" or "DUPFD" in arguments:
            original = self.resource(arguments, position)
            self._set(int(returned[1]), position, original[1] if original else None)

    def _at(self, number: int, position: int) -> Resource | None:
        """What a descriptor was at a position: the last change before it."""
        history = self._known.get(number, [])
        for index in range(len(history) - 1, -1, -1):
            at, value = history[index]
            if at <= position:
                if value is not None and not isinstance(value, Resource):
                    value = _made(*(part.decode("utf-8", "replace") for part in value))
                    history[index] = at, value
                return value
        return None

    def _set(self, number: int, position: int, value: Resource | Made | None) -> None:
        history = self._known.get(number)
        if history is None:
            if len(self._known) >= KEPT:
                return
            history = self._known[number] = []
        history.append((position, value))
        if len(history) > HISTORY:
            del history[0]

    def _connect(self, arguments: str, position: int) -> None:
        target, named = peer_of(arguments), DESCRIPTOR.match(arguments)
        if target and named:
            self._set(int(named[1]), position, target)

    def _pair(self, arguments: str, position: int) -> None:
        if found := PAIR.search(arguments):
            for number in found.groups():
                self._set(int(number), position, Resource("pipe", "pipe"))


def _made(name: str, arguments: str, annotation: str) -> Resource | None:
    """What a call that returned a fresh descriptor made."""
    named = _annotated(annotation[1:-1]) if annotation.startswith("<") else None
    if named and named.kind != "other":
        return named
    if name in OPENERS:
        return path_of(arguments)
    if name in SOCKETS:
        return (name != "socket" and peer_of(arguments)) or Resource("other", "socket")
    return Resource("other", ANONYMOUS_CALLS[name]) if name in ANONYMOUS_CALLS else None


def _annotated(text: str) -> Resource | None:
    """What `-y`, `-yy` or perf prints between angle brackets."""
    text = text.removesuffix(" (deleted)").removesuffix("(deleted)")
    if text.startswith("/"):
        return Resource("path", text)
    if found := TCP_NAME.match(text):
        return Resource("peer", found[1])
    if found := UNIX_NAME.match(text):
        return Resource("peer", found[1]) if found[1] else Resource("other", "unix socket")
    if text.startswith("pipe:"):
        return Resource("pipe", text)
    if text.startswith("socket:"):
        return Resource("other", "socket")
    found = ANONYMOUS.match(text.removeprefix("anon_inode:"))
    return Resource("other", found[1]) if found else None


def peer_of(arguments: str) -> Resource | None:
    """The address in a connect(), accept() or sendto()."""
    for pattern, shape in ((IPV4, "{1}:{0}"), (IPV6, "[{1}]:{0}"), (PERF_ADDRESS, "{1}:{0}")):
        if found := pattern.search(arguments):
            return Resource("peer", shape.format(*found.groups()))
    if found := UNIX.search(arguments):
        return Resource("peer", found[2] or found[1].replace('"', ""))
    return None


def path_of(arguments: str, kind: ResourceKind = "path") -> Resource | None:
    """The first path among the arguments, put behind its directory where `-y` printed that."""
    found = STRING.search(arguments)
    if not found:
        return None
    path = unescaped(found[1])
    directory = re.match(r"(?:AT_FDCWD|\d+)<(/[^<>]*)>, $", arguments[: found.start()])
    if directory and not path.startswith("/"):
        path = f"{directory[1].rstrip('/')}/{path}" if path else directory[1]
    return Resource(kind, path)


def unescaped(text: str) -> str:
    """A string as strace escapes it (C escapes, octal bytes) as text."""
    if "\\" not in text:
        return text
    return ESCAPE.sub(_unescaped, text).encode("latin-1", "replace").decode("utf-8", "replace")


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF)
    if code[0] == "x" and len(code) == 3:
        return chr(int(code[1:], 16))
    return C_ESCAPES.get(code, code)
