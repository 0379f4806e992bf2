"""Stacks for people: what is the user's stands out, the rest is folded."""

from __future__ import annotations

from stallscope.analysis.findings import Location
from stallscope.recording.nouns import Frame
from stallscope.report.frames import chain, lines
from tests.analysis.recordings import EVENTS, LOOP_FRAMES, SERVER, stack

PACKAGES = "/srv/venv/lib/python3.11/site-packages/"
LIBRARIES = (
    Frame("/usr/lib/python3.11/socket.py", 706, "SocketIO.readinto"),
    Frame(f"{PACKAGES}urllib3/connectionpool.py", 466, "HTTPConnectionPool._make_request"),
    Frame(f"{PACKAGES}requests/adapters.py", 486, "HTTPAdapter.send"),
    Frame(f"{PACKAGES}requests/api.py", 59, "get"),
)


def test_the_frames_of_libraries_are_folded_above_the_line_that_called_them() -> None:
    where = stack(20, "Server.load", *LIBRARIES)
    assert chain(where) == "handle:12 > load:20 > [requests, urllib3, socket]"
    told = list(lines(where, Location(SERVER, 20, "Server.load")))
    assert told == [
        "    (4 frames of requests, urllib3, socket, down to python3.11/socket.py:706 readinto)",
        "  > app/server.py:20 Server.load",
        "    app/server.py:12 Server.handle",
    ]


def test_a_recursion_is_counted() -> None:
    where = stack(20, "walk", Frame(SERVER, 90, "read"), *[Frame(SERVER, 80, "walk")] * 7)
    assert chain(where) == "handle:12 > walk:20 > walk:80 x7 > read:90"
    assert "    app/server.py:80 walk (x7)" in list(lines(where, None))


def test_asyncios_own_frames_are_left_out() -> None:
    streams = Frame(EVENTS.replace("events", "streams"), 5, "StreamReader.read")
    assert chain((Frame(SERVER, 20, "load"), streams, *LOOP_FRAMES)) == "load:20"


def test_a_package_that_is_one_file_and_one_of_the_standard_library() -> None:
    six = Frame(f"{PACKAGES}six.py", 1, "f")
    json = Frame("/usr/lib/python3.11/json/__init__.py", 1, "loads")
    assert chain(stack(20, "load", json, six)) == "handle:12 > load:20 > [six, json]"


def test_a_program_without_a_file_is_the_users() -> None:
    main = (Frame("<string>", 3, "load"), Frame("<string>", 9, "main"), *LOOP_FRAMES[:2])
    assert chain(main) == "main:9 > load:3"
    made = Frame("<attrs generated init app.Item>", 7, "__init__")
    assert chain(stack(20, "load", made)) == "handle:12 > load:20 > [<attrs generated init app.Item>]"
