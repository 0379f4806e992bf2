"""Every remedy of the catalogue: a culprit that must get it, and one much like it that must not."""

from __future__ import annotations

import ast
from dataclasses import replace
from string import Formatter
from textwrap import indent
from typing import get_args

import pytest

from stallscope.analysis.advice import LOW_CONFIDENCE, advise
from stallscope.analysis.catalogue import ALSO, CATALOGUE, REMEDIES
from stallscope.analysis.findings import Culprit, Location, ResourceTime
from stallscope.analysis.ledger import CAUSES, Cause
from stallscope.analysis.remedies import Remedy
from stallscope.recording.nouns import Frame, ResourceKind
from tests.analysis.recordings import HANDLER, MS, SERVER, stack

PACKAGES = "/srv/venv/lib/python3.11/site-packages/"
STDLIB = "/usr/lib/python3.11/"


def culprit(
    cause: Cause,
    call: str | None = None,
    kind: str = "",
    *names: str,
    inside: str = "",
    function: str = "f",
    stalls: int = 2,
) -> Culprit:
    """A culprit in `load`, which the handler called; `inside` is the file of a library that it entered there."""
    resources = tuple(ResourceTime(name, kind, MS) for name in names or ("",)) if kind else ()
    inner = (Frame(inside, 5, function),) if inside else ()
    return Culprit(
        rank=1,
        kind="site",
        cause=cause,
        ns=100 * MS,
        share=1.0,
        stalls=stalls,
        longest_ns=50 * MS,
        syscall=call,
        resource=names[0] if names else None,
        resources=resources,
        handler=HANDLER,
        location=Location(SERVER, 20, "load"),
        stack=stack(20, "load", *inner),
    )


def blocking(call: str, kind: str = "", *names: str, inside: str = "", function: str = "f", stalls: int = 2) -> Culprit:
    return culprit("blocking-syscall", call, kind, *names, inside=inside, function=function, stalls=stalls)


def package(name: str, file: str = "api.py") -> Culprit:
    return blocking("recvfrom", "peer", "10.0.0.5:80", inside=f"{PACKAGES}{name}/{file}")


PLAIN_SOCKET = blocking("recvfrom", "peer", "10.0.0.5:80")
COMPUTES = culprit("python-cpu")
READ = blocking("read", "path", "/data/a.bin")
LOGGING = f"{STDLIB}logging/handlers.py"

# name: (a culprit that gets it, one that does not)
PRIMARY: dict[str, tuple[Culprit, Culprit]] = {
    "pile-up": (replace(COMPUTES, kind="pile-up"), COMPUTES),
    "saturation": (replace(COMPUTES, kind="saturation"), replace(COMPUTES, kind="pile-up")),
    "requests": (package("requests"), package("httpx")),
    "boto3": (package("botocore"), package("requests")),
    "urllib": (blocking("recvfrom", "peer", "10.0.0.5:80", inside=f"{STDLIB}http/client.py"), PLAIN_SOCKET),
    "psycopg2": (package("psycopg2"), package("psycopg")),
    "postgresql": (blocking("poll", "peer", "10.0.0.5:5432"), blocking("poll", "peer", "10.0.0.5:15432:80")),
    "redis": (package("redis", "connection.py"), package("redis", "asyncio/connection.py")),
    "mysql": (package("pymysql"), package("aiomysql")),
    "sqlite3": (blocking("pread64", "path", "/srv/app.db-wal"), blocking("pread64", "path", "/srv/dbase.bin")),
    "resolver": (blocking("poll", inside=f"{STDLIB}socket.py", function="getaddrinfo"), blocking("poll")),
    "syslog": (
        blocking("sendto", "other", "/dev/log", inside=LOGGING, function="SysLogHandler.emit"),
        blocking("write", "path", "/var/app.log", inside=LOGGING, function="emit"),
    ),
    "log handler": (
        blocking("write", "path", "/var/x", inside=f"{STDLIB}logging/__init__.py", function="StreamHandler.emit"),
        blocking("write", "path", "/var/x"),
    ),
    "file lock": (blocking("flock", "path", "/a"), READ),
    "sleep": (blocking("clock_nanosleep", "timer"), blocking("poll", "timer")),
    "sleep by poll": (blocking("select", "timer"), blocking("select", "peer", "10.0.0.5:80")),
    "child": (blocking("wait4", "child", "pid 7"), blocking("read", "pipe", "pipe:[7]")),
    "open": (blocking("openat", "path", "/a"), READ),
    "connect": (blocking("connect", "peer", "10.0.0.5:80"), PLAIN_SOCKET),
    "sendfile": (blocking("sendfile", "path", "/a"), READ),
    "socket of a peer": (PLAIN_SOCKET, READ),
    "socket": (blocking("sendto"), blocking("ioctl")),
    "pipe": (blocking("read", "pipe", "pipe:[7]"), READ),
    "read": (READ, blocking("openat", "path", "/data/a.bin")),
    "log file": (blocking("write", "path", "/var/log/access.log"), blocking("write", "path", "/data/catalogue.bin")),
    "write": (blocking("fsync", "path", "/data/catalogue.bin"), blocking("write", "path", "/var/log/access.log")),
    "poll": (blocking("poll"), blocking("ioctl")),
    "call": (blocking("ioctl"), culprit("unexplained")),
    "lock": (culprit("lock-wait", "futex"), culprit("gil-wait")),
    "gil": (culprit("gil-wait"), culprit("lock-wait", "futex")),
    "gc": (culprit("gc"), COMPUTES),
    "import": (culprit("import"), COMPUTES),
    "regular expression": (culprit("native-cpu", inside=f"{STDLIB}re/__init__.py"), culprit("native-cpu")),
    "json": (culprit("native-cpu", inside=f"{STDLIB}json/decoder.py"), READ),
    "computing": (COMPUTES, culprit("native-cpu", inside=f"{STDLIB}json/decoder.py")),
    "no CPU": (culprit("descheduled"), culprit("suspended")),
    "stopped": (culprit("suspended"), culprit("descheduled")),
}
BESIDES: dict[str, tuple[Culprit, Culprit]] = {
    "cache": (
        blocking("newfstatat", "path", "/a", "/b", stalls=6),
        blocking("newfstatat", "path", "/a", "/b", "/c", stalls=6),
    ),
    "file to socket": (READ, blocking("read", "pipe", "pipe:[7]")),
    "direct I/O": (READ, blocking("openat", "path", "/data/a.bin")),
    "datagram log": (blocking("write", "path", "/var/log/access.log"), blocking("write", "path", "/data/a.bin")),
    "pool for each disk": (
        blocking("read", "path", "/mnt/a/x", "/mnt/b/x"),
        blocking("read", "path", "/mnt/a/x", "/mnt/a/y"),
    ),
    "many small calls": (replace(READ, calls_per_stall=6), replace(READ, calls_per_stall=5)),
}


def test_every_remedy_is_tried() -> None:
    assert list(PRIMARY) == [remedy.name for remedy in CATALOGUE]
    assert list(BESIDES) == [remedy.name for remedy in ALSO]


@pytest.mark.parametrize("name", PRIMARY)
def test_a_remedy_goes_to_its_culprit_and_to_no_other(name: str) -> None:
    fits, other = PRIMARY[name]
    given, not_given = advise(fits), advise(other)
    assert given is not None
    assert given.remedy == name
    assert not_given is None or not_given.remedy != name


@pytest.mark.parametrize("name", BESIDES)
def test_what_helps_besides_is_told_where_it_does(name: str) -> None:
    fits, other = BESIDES[name]
    given, not_given = advise(fits), advise(other)
    assert given is not None
    assert not_given is not None
    assert name in [one.remedy for one in given.also]
    assert name not in [one.remedy for one in not_given.also]


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda remedy: remedy.name)
def test_an_entry_is_complete(remedy: Remedy) -> None:
    assert remedy.source.startswith("https://")
    assert remedy.causes <= set(CAUSES)
    assert remedy.kinds <= set(get_args(ResourceKind))
    named = {name for text in (remedy.words, remedy.code) for _, name, _, _ in Formatter().parse(text) if name}
    assert named <= {"call", "resource", "function", "handler"}
    words = {"call": "read", "resource": "/a", "function": "blocking_part", "handler": "handle"}
    code = remedy.code.format(**words)
    assert max(map(len, code.splitlines()), default=0) <= 72
    ast.parse(f"async def handler():\n{indent(code or 'pass', '    ')}")


def test_the_handler_itself_is_never_sent_to_a_thread() -> None:
    own = replace(READ, location=Location(SERVER, 20, "Server.handle"))
    generated = replace(READ, location=Location(SERVER, 20, "Server.handle.<locals>.<lambda>"))
    for one in (own, generated):
        given = advise(one)
        assert given is not None
        assert "to_thread(blocking_part, ...)" in given.code
    helper = advise(READ)
    assert helper is not None
    assert "to_thread(load, ...)" in helper.code


def test_low_confidence_is_said() -> None:
    given = advise(replace(READ, low_confidence=True))
    assert given is not None
    assert given.summary.endswith(LOW_CONFIDENCE)
    sure = advise(READ)
    assert sure is not None
    assert LOW_CONFIDENCE not in sure.summary
