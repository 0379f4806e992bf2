"""What the file descriptors of a traced process are, rebuilt from the calls that make and close them.

The text of strace and of perf trace is read alike: `openat(AT_FDCWD, "a") = 3` and
`openat(dfd: CWD, filename: "a") = 3`; what `-y` or perf prints behind a descriptor wins over what was rebuilt.
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
CHANGES = {*OPENERS, *SOCKETS, *PAIRS, *COPIES, *ANONYMOUS_CALLS, "connect", "bind", "close"}
"""The calls that a Descriptors must observe."""
ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{2}|.)")
C_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f", "a": "\a", "b": "\b"}
KEPT = 1 << 20
"""Descriptors remembered for each process: more than any process may have open."""


class Descriptors:
    """The descriptor table of one process."""

    def __init__(self) -> None:
        self._known: dict[int, Resource] = {}

    def inherit(self, parent: Descriptors) -> None:
        """Take over the table of the process that forked, but for what is known already."""
        self._known = {**parent._known, **self._known}

    def resource(self, text: str) -> tuple[int, Resource | None] | None:
        """The descriptor that `text` begins with, and what it is; None where there is no descriptor."""
        found = DESCRIPTOR.match(text)
        if not found:
            return None
        number = int(found[1])
        named = _annotated(found[2]) if found[2] else None
        if named is None or named.kind == "other":
            named = self._known.get(number, named)
        return number, named

    def observe(self, name: str, arguments: str, result: str) -> None:
        """Take in one finished call of CHANGES."""
        if name == "connect":
            self._connect(arguments)
            return
        returned = DESCRIPTOR.match(result)
        if not returned or int(returned[1]) < 0:
            return
        number = int(returned[1])
        if name == "close":
            self._close(arguments)
        elif name in PAIRS:
            self._pair(arguments)
        elif name in COPIES:
            self._copy(name, arguments, number)
        elif resource := _made(name, arguments, returned[2]):
            self._set(number, resource)

    def _set(self, number: int, resource: Resource) -> None:
        if len(self._known) < KEPT:
            self._known[number] = resource

    def _connect(self, arguments: str) -> None:
        target, named = peer_of(arguments), DESCRIPTOR.match(arguments)
        if target and named:
            self._set(int(named[1]), target)

    def _close(self, arguments: str) -> None:
        if found := DESCRIPTOR.match(arguments):
            self._known.pop(int(found[1]), None)

    def _pair(self, arguments: str) -> None:
        if found := PAIR.search(arguments):
            for number in found.groups():
                self._set(int(number), Resource("pipe", "pipe"))

    def _copy(self, name: str, arguments: str, number: int) -> None:
        if name == "fcntl" and "DUPFD" not in arguments:
            return
        original = self.resource(arguments)
        if original and original[1]:
            self._set(number, original[1])
        else:
            self._known.pop(number, None)


def _made(name: str, arguments: str, annotation: str | None) -> Resource | None:
    """What a call that returned a fresh descriptor made."""
    named = _annotated(annotation) if annotation else None
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
