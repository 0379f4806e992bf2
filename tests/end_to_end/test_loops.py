"""Loops that are not asyncio's own: real libraries, with iterations, handlers and stalls that the program knows of."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stallscope import pulse
from stallscope.recording.nouns import Loop, Recording, Stall
from tests.end_to_end.observing import observed, recorded, write

pytestmark = pytest.mark.skipif(pulse.unusable_reason() is not None, reason=f"no pulse: {pulse.unusable_reason()}")

STALLS = """
    # Imported before anybody patches what it uses.
    import json, os
    from _thread import start_new_thread
    from time import monotonic_ns, sleep, thread_time

    told = []

    def stalled(kind, begun):
        told.append([kind, begun, monotonic_ns()])

    def sleeps():
        begun = monotonic_ns()
        sleep(0.2)
        stalled("sleeps", begun)

    def reads():
        out, into = os.pipe()
        start_new_thread(lambda: (sleep(0.2), os.write(into, b"x")), ())
        begun = monotonic_ns()
        os.read(out, 1)
        stalled("reads", begun)

    def computes():
        begun, until = monotonic_ns(), thread_time() + 0.2
        while thread_time() < until:
            pass
        stalled("computes", begun)

    def tell(turns):
        print(json.dumps({"turns": turns, "stalls": told}), flush=True)
"""

ASYNCIO = """
    import asyncio, sys, threading
    import stalls

    class Service:
        async def sleeper(self):
            await asyncio.sleep(0)
            stalls.sleeps()

        async def reader(self):
            await asyncio.sleep(0)
            stalls.reads()

    def computer():
        stalls.computes()

    async def turns(count):
        service = Service()
        for turn in range(count):
            await asyncio.sleep(0.001)
            if turn == 100:
                sleeping = asyncio.ensure_future(service.sleeper())
            if turn == 150:
                reading = asyncio.ensure_future(service.reader())
            if turn == 200:
                asyncio.get_running_loop().call_soon(computer)
        await asyncio.gather(sleeping, reading)

    def serve():
        run(turns(300))

    {run}
    if "thread" in sys.argv:
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
    else:
        serve()
    stalls.tell(300)
"""

TRIO = """
    import sys, threading, trio
    import stalls

    class Service:
        async def sleeper(self):
            await trio.sleep(0)
            stalls.sleeps()

        async def reader(self):
            await trio.sleep(0)
            stalls.reads()

    async def computer():
        stalls.computes()

    async def turns(count):
        service = Service()
        async with trio.open_nursery() as nursery:
            for turn in range(count):
                await trio.sleep(0.001)
                if turn == 100:
                    nursery.start_soon(service.sleeper)
                if turn == 150:
                    nursery.start_soon(service.reader, name="the reader")
                if turn == 200:
                    nursery.start_soon(computer)

    if "thread" in sys.argv:
        thread = threading.Thread(target=trio.run, args=(turns, 300))
        thread.start()
        thread.join()
    else:
        trio.run(turns, 300)
    stalls.tell(300)
"""

GEVENT = """
    import sys
    import stalls
    if "patched" in sys.argv:
        from gevent import monkey
        monkey.patch_all()
    import gevent

    class Service:
        def sleeper(self):
            stalls.sleeps()

        def reader(self):
            gevent.sleep(0)
            stalls.reads()

    def computer():
        stalls.computes()

    def turns(count):
        service = Service()
        for turn in range(count):
            gevent.sleep(0.001)
            if turn == 100:
                gevent.spawn(service.sleeper)
            if turn == 150:
                gevent.spawn(service.reader)
            if turn == 200:
                gevent.spawn_later(0.001, computer)

    gevent.spawn(turns, 300).join()
    stalls.tell(300)
"""

TWISTED = """
    import sys, time
    import stalls
    from twisted.internet import epollreactor
    epollreactor.install()
    from twisted.internet import defer, reactor, task

    class Service:
        def sleeper(self):
            stalls.sleeps()

        @defer.inlineCallbacks
        def reader(self):
            yield task.deferLater(reactor, 0)
            stalls.reads()

    def computer():
        stalls.computes()

    def turns(left):
        if left == 200:
            reactor.callLater(0, service.sleeper)
        if left == 150:
            service.reader()
        if left == 100:
            reactor.callLater(0, computer)
        if left:
            reactor.callLater(0.001, turns, left - 1)
        else:
            reactor.stop()

    service = Service()
    reactor.callWhenRunning(turns, 300)
    reactor.run()
    stalls.tell(300)
    time.sleep(0.2)  # the loop is over: no stall
"""


@dataclass(frozen=True)
class Library:
    """One library's program, and what its loop is to be called."""

    module: str
    kind: str
    program: str
    words: tuple[str, ...] = ()
    counts_handlers: bool = False


def on(run: str) -> str:
    """The asyncio program, run so."""
    return ASYNCIO.replace("{run}", run)


UVLOOP = on("import uvloop; run = uvloop.run")
TORNADO = "from tornado.ioloop import IOLoop; run = lambda main: IOLoop.current().run_sync(lambda: main)"

LIBRARIES = {
    "uvloop": Library("uvloop", "uvloop", UVLOOP),
    "uvloop in a thread": Library("uvloop", "uvloop", UVLOOP, ("thread",)),
    "trio": Library("trio", "trio", TRIO, counts_handlers=True),
    "trio in a thread": Library("trio", "trio", TRIO, ("thread",), counts_handlers=True),
    "gevent": Library("gevent", "gevent", GEVENT),
    "gevent, patched": Library("gevent", "gevent", GEVENT, ("patched",)),
    "twisted": Library("twisted", "twisted", TWISTED),
    "tornado": Library("tornado", "asyncio", on(TORNADO), counts_handlers=True),
    "tornado on uvloop": Library("tornado", "uvloop", on(f"import uvloop; uvloop.install(); {TORNADO}")),
}


def need(*modules: str) -> None:
    """Skip where one of them is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module} here: pip install -e '.[test]' brings it where it can be had")


def run(directory: Path, program: str, *words: str) -> tuple[Recording, Any]:
    """Run a program with ``stalls`` beside it; the recording, and what the program told."""
    write(directory, "stalls.py", STALLS)
    write(directory, "program.py", program)
    ran = observed(directory, "program.py", *words)
    assert ran.code == 0, ran.stderr
    return recorded(directory), json.loads(ran.stdout or "null")


def only_loop(recording: Recording, kind: str) -> Loop:
    """The one loop of the recording."""
    (loop,) = recording.loops
    assert loop.kind == kind
    return loop


def of(recording: Recording, told: list[Any]) -> Stall:
    """The one stall that was on while the program stalled."""
    _, begun, ended = told
    (stall,) = [
        stall for stall in recording.stalls if stall.start_ns <= begun and ended <= stall.start_ns + stall.duration_ns
    ]
    return stall


@pytest.mark.parametrize("library", [pytest.param(library, id=name) for name, library in LIBRARIES.items()])
def test_iterations_handlers_and_stalls(tmp_path: Path, library: Library) -> None:
    need(library.module, library.kind)
    recording, told = run(tmp_path, library.program, *library.words)
    loop = only_loop(recording, library.kind)
    assert told["turns"] <= sum(loop.counts.values()) <= 3 * told["turns"]
    stalls = {stalled[0]: (stalled, of(recording, stalled)) for stalled in told["stalls"]}
    named = {kind: stall.current and stall.current.name for kind, (_, stall) in stalls.items()}
    assert named == {"sleeps": "Service.sleeper", "reads": "Service.reader", "computes": "computer"}
    for kind, call in (("sleeps", "clock_nanosleep"), ("reads", "read")):
        (_, begun, ended), stall = stalls[kind]
        (timed,) = [timed for timed in stall.calls if timed.call.name == call and begun <= timed.start_ns <= ended]
        assert timed.start_ns + timed.duration_ns <= ended
        assert timed.duration_ns >= 50_000_000
        assert (Path(timed.stack[0].file).name, timed.stack[0].function) == ("stalls.py", kind)
        assert timed.stack[0].line == line_of({"sleeps": "sleep(0.2)", "reads": "os.read(out, 1)"}[kind])
    assert "computes" in {frame.function for span in stalls["computes"][1].spans for frame in span.stack}
    assert any("handler" in one.what for one in recording.fidelity.missing) is not library.counts_handlers
    counted = {one.handler.name for one in recording.handlers}
    assert not library.counts_handlers or {"Service.sleeper", "Service.reader", "computer"} <= counted


def line_of(text: str) -> int:
    """Where a line of ``stalls`` stands, whatever its indentation."""
    (line,) = [number for number, line in enumerate(STALLS.splitlines(), 1) if line.strip() == text]
    return line


GUEST = (
    TRIO.replace("import sys", "import asyncio, queue, sys")
    .replace("trio.run(turns, 300)", "host()")
    .replace(
        "async def computer",
        """def host():
        calls, over = queue.SimpleQueue(), []
        trio.lowlevel.start_guest_run(
            turns, 300, run_sync_soon_threadsafe=calls.put, done_callback=over.append,
            host_uses_signal_set_wakeup_fd=True,
        )
        while not over:
            calls.get()()

    async def asyncio_host():
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        trio.lowlevel.start_guest_run(
            turns, 300, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=lambda _: over.set(),
            host_uses_signal_set_wakeup_fd=True,
        )
        await over.wait()

    async def computer""",
    )
)
"""A guest run's host is no loop of ours, or asyncio's; the run waits in a thread that is not the host's."""


def test_a_guest_run_of_trio_is_one_loop(tmp_path: Path) -> None:
    need("trio")
    recording, told = run(tmp_path, GUEST)
    loop = only_loop(recording, "trio")
    assert told["turns"] <= sum(loop.counts.values()) <= 6 * told["turns"]
    named = {kind: of(recording, [kind, *when]).current for kind, *when in told["stalls"]}
    assert {kind: one and one.name for kind, one in named.items()} == {
        "sleeps": "Service.sleeper", "reads": "Service.reader", "computes": "computer",
    }  # fmt: skip
    assert max(stall.duration_ns for stall in recording.stalls) < 1_500_000_000


def test_a_guest_run_of_trio_is_its_hosts(tmp_path: Path) -> None:
    need("trio")
    recording, told = run(tmp_path, GUEST.replace("        host()", "        asyncio.run(asyncio_host())"))
    only_loop(recording, "asyncio")
    found = [of(recording, stalled) for stalled in told["stalls"]]  # each is one stall of the host's
    assert len({stall.start_ns for stall in found}) == 3


def test_a_guest_run_that_stalls_as_it_begins_is_seen(tmp_path: Path) -> None:
    """Beside a loop that the pulse measures the watchdog rests for long: it must wake for a run that is its own."""
    need("trio")
    idle = (  # for so long that by then the watchdog, which has nothing to do, is at rest for half a second
        "threading.Thread(target=asyncio.new_event_loop().run_forever, daemon=True).start(); time.sleep(0.75); host()"
    )
    program = GUEST.replace("import asyncio,", "import asyncio, time,").replace("        host()", f"        {idle}")
    recording, told = run(tmp_path, program.replace("service = Service()", "service = Service(); stalls.computes()"))
    stall = of(recording, told["stalls"][0])
    assert "computes" in {frame.function for span in stall.spans for frame in span.stack}


def test_trio_tasks_by_name(tmp_path: Path) -> None:
    need("trio")
    recording, told = run(tmp_path, TRIO)
    names = {stalled[0]: of(recording, stalled).task for stalled in told["stalls"]}
    assert names["reads"] == "the reader"


def test_a_loop_that_comes_long_after_its_library(tmp_path: Path) -> None:
    """Nobody declares it: somebody must still be looking."""
    need("twisted")
    recording, told = run(tmp_path, TWISTED.replace("reactor.run()", "time.sleep(1.5); reactor.run()"))
    only_loop(recording, "twisted")
    stall = of(recording, told["stalls"][0])
    assert stall.current is not None
    assert stall.current.name == "Service.sleeper"


def test_uvloop_between_its_runs(tmp_path: Path) -> None:
    """The program works for longer than the threshold between two runs of one loop: no iteration, no stall."""
    need("uvloop")
    recording, _ = run(
        tmp_path,
        """
        import asyncio, time, uvloop

        async def turn():
            for _ in range(3):
                await asyncio.sleep(0)

        loop = uvloop.new_event_loop()
        for _ in range(20):
            loop.run_until_complete(turn())
            time.sleep(0.02)
        loop.close()
        time.sleep(0.02)
        """,
    )
    loop = only_loop(recording, "uvloop")
    assert 60 <= sum(loop.counts.values()) <= 200
    assert not [stall for stall in recording.stalls if stall.calls]


def test_many_uvloop_runs_are_one_loop(tmp_path: Path) -> None:
    """As pytest-asyncio does it: a loop for each test. The stall of the last but one is named."""
    need("uvloop")
    recording, told = run(
        tmp_path,
        """
        import asyncio, stalls, uvloop

        async def case(number):
            await asyncio.sleep(0)
            if number == 98:
                stalls.sleeps()

        def run_case(number):
            uvloop.run(case(number))

        for number in range(100):
            run_case(number)
        stalls.tell(100)
        """,
    )
    only_loop(recording, "uvloop")
    stall = of(recording, told["stalls"][0])
    assert stall.current is not None
    assert stall.current.name == "case"


def test_the_first_handler_of_a_uvloop_run(tmp_path: Path) -> None:
    """What a run does before its first wait is an iteration, too."""
    need("uvloop")
    recording, told = run(
        tmp_path,
        """
        import stalls, uvloop

        async def main():
            stalls.sleeps()

        uvloop.run(main())
        stalls.tell(1)
        """,
    )
    stall = of(recording, told["stalls"][0])
    assert stall.current is not None
    assert stall.current.name == "main"


def test_another_epoll_before_uvloop(tmp_path: Path) -> None:
    """A client library that waits by epoll is not taken for the loop once a real one runs."""
    need("uvloop")
    recording, told = run(
        tmp_path,
        """
        import asyncio, select, stalls, uvloop

        client = select.epoll()
        for _ in range(3):
            client.poll(0)

        async def main():
            for _ in range(50):
                await asyncio.sleep(0.001)
            stalls.sleeps()
            client.poll(0.03)

        uvloop.run(main())
        stalls.tell(50)
        """,
    )
    assert "uvloop" in {loop.kind for loop in recording.loops}
    (loop,) = [loop for loop in recording.loops if loop.kind == "uvloop"]
    assert sum(loop.counts.values()) >= 50
    stall = of(recording, told["stalls"][0])
    assert [call.call.name for call in stall.calls if call.duration_ns > 20_000_000] == [
        "clock_nanosleep",
        "epoll_wait",
    ]


LOOPS_IN_THREADS = """
    import asyncio, sys, threading, uvloop
    import stalls

    together, count = sys.argv[1] == "together", int(sys.argv[2])
    barrier = threading.Barrier(count if together else 1)

    async def main():
        for _ in range(5):
            await asyncio.sleep(0.001)
        barrier.wait()
        for _ in range(5):
            await asyncio.sleep(0.001)

    threads = [threading.Thread(target=lambda: uvloop.run(main())) for _ in range(count)]
    for thread in threads:
        thread.start()
        if not together:
            thread.join()
    for thread in threads:
        thread.join()
    stalls.tell(10 * count)
"""


def test_loops_that_come_and_go(tmp_path: Path) -> None:
    need("uvloop")
    recording, told = run(tmp_path, LOOPS_IN_THREADS, "one by one", "40")
    assert {loop.kind for loop in recording.loops} == {"uvloop"}
    assert sum(sum(loop.counts.values()) for loop in recording.loops) >= told["turns"] / 2  # not all found a slot


def test_more_loops_than_there_is_room_for(tmp_path: Path) -> None:
    need("uvloop")
    recording, _ = run(tmp_path, LOOPS_IN_THREADS, "together", "70")
    assert 0 < len(recording.loops) <= 64
    (missing,) = [one for one in recording.fidelity.missing if one.what.endswith(" loops")]
    assert int(missing.what.split()[0]) == 70 - len(recording.loops)


def test_a_thread_that_waits_by_epoll_once_is_no_loop(tmp_path: Path) -> None:
    recording, _ = run(
        tmp_path,
        """
        import asyncio, select, threading, time

        def wait_once():
            with select.epoll() as poller:
                poller.poll(0.001)
                time.sleep(0.05)
            time.sleep(0.05)

        async def main():
            threads = [threading.Thread(target=wait_once) for _ in range(20)]
            for thread in threads:
                thread.start()
            for _ in range(100):
                await asyncio.sleep(0.001)
            await asyncio.gather(*[asyncio.to_thread(thread.join) for thread in threads])

        asyncio.run(main())
        """,
    )
    only_loop(recording, "asyncio")


def test_nested_asyncio(tmp_path: Path) -> None:
    need("nest_asyncio")
    recording, told = run(
        tmp_path,
        """
        import asyncio, nest_asyncio, stalls

        async def inner():
            for _ in range(50):
                await asyncio.sleep(0.001)

        async def main():
            loop = asyncio.get_running_loop()
            loop.run_until_complete(inner())
            await asyncio.sleep(0.001)
            stalls.sleeps()
            await asyncio.sleep(0.001)

        nest_asyncio.apply()
        asyncio.run(main())
        stalls.tell(50)
        """,
    )
    # Its first handler declares it as that ends; its waits inside are found before, and may have been named by then.
    assert {loop.kind for loop in recording.loops} == {"asyncio"}
    loop = max(recording.loops, key=lambda loop: sum(loop.counts.values()))
    assert sum(loop.counts.values()) >= told["turns"]
    assert of(recording, told["stalls"][0]).calls
