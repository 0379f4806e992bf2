"""The program does not notice: what it prints, what it finds, and what it does to its own surroundings."""

from __future__ import annotations

import pytest

from tests.agent.observing import Observing

UNCHANGED = {
    "an unhandled exception": """
        import asyncio
        async def inner(): raise ValueError("mine")
        async def main(): await asyncio.ensure_future(inner())
        asyncio.run(main())
        """,
    "a task nobody asked, and a callback that raises": """
        import asyncio, gc
        def callback(): raise KeyError("callback")
        async def forgotten(): raise ValueError("task")
        async def main():
            task = asyncio.ensure_future(forgotten())
            asyncio.get_running_loop().call_soon(callback)
            await asyncio.sleep(0.001)
            del task
            gc.collect()
            print("went on")
        asyncio.run(main())
        """,
    "a stack printed by a handler": """
        import asyncio, traceback
        def callback(): print(len(traceback.extract_stack()))
        async def main():
            try:
                await asyncio.wait_for(asyncio.sleep(10), 0.001)
            except asyncio.TimeoutError:
                traceback.print_exc()
        asyncio.run(main())
        """,
    "SystemExit": """
        import asyncio, sys
        def leave(): sys.exit(7)
        async def main():
            asyncio.get_running_loop().call_soon(leave)
            await asyncio.sleep(10)
        try:
            asyncio.run(main())
        finally:
            print("cleaned up")
        """,
    "KeyboardInterrupt": """
        import asyncio
        def leave(): raise KeyboardInterrupt
        async def main():
            asyncio.get_running_loop().call_soon(leave)
            await asyncio.sleep(10)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
            raise SystemExit(3)
        """,
    "a loop that is never closed": """
        import asyncio, gc, warnings
        warnings.simplefilter("always")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        del loop
        gc.collect()
        print("went on")
        """,
    "no loop at all": """
        import threading
        print(threading.active_count())
        raise SystemExit("nothing to do")
        """,
    "what it finds": """
        import asyncio, gc, signal, sys, threading
        found = {}
        def name_of(thing): return getattr(thing, "__name__", type(thing).__name__)
        async def main():
            await asyncio.sleep(0.001)
            found.update(
                threads=[thread.name for thread in threading.enumerate()], count=threading.active_count(),
                signals=[name_of(signal.getsignal(number)) for number in range(1, 32)],
                wakeup=signal.set_wakeup_fd(-1) != -1, mask=str(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                gc=[gc.isenabled(), gc.get_threshold(), gc.get_debug()], path=sys.path,
                meta=[name_of(finder) for finder in sys.meta_path if name_of(finder) != "_Finder"],  # waits for trio
                excepthook=sys.excepthook is sys.__excepthook__,
                hooks=[sys.gettrace(), sys.getprofile(), threading.excepthook.__name__],
                switch=sys.getswitchinterval(), recursion=sys.getrecursionlimit(), argv=sys.argv,
                modules=sorted(name for name, module in sys.modules.items()
                    if str(getattr(module, "__file__", "")).endswith(".py")
                    and not name.startswith("_stallscope_agent") and name != "__future__"),
                bytecode=sys.dont_write_bytecode, flags=sys.flags, main=sorted(vars(sys.modules["__main__"])))
        asyncio.run(main(), debug=False)
        for name, value in sorted(found.items()): print(name, value)
        """,
    "settrace and setprofile": """
        import asyncio, sys, threading
        seen = {"trace": [], "profile": [], "threads": []}
        def recorder(kind):
            def record(frame, event, argument):
                if frame.f_code.co_filename == __file__: seen[kind].append((event, frame.f_code.co_name))
                return record
            return record
        def in_thread():
            loop = asyncio.new_event_loop()
            loop.run_until_complete(some())
            loop.close()
        async def some(): await asyncio.sleep(0.02)
        threading.settrace(recorder("threads"))
        tracer, profiler = recorder("trace"), recorder("profile")
        sys.settrace(tracer); sys.setprofile(profiler)
        asyncio.run(some())
        thread = threading.Thread(target=in_thread); thread.start(); thread.join()
        kept = sys.gettrace() is tracer and sys.getprofile() is profiler
        sys.settrace(None); sys.setprofile(None)
        print(kept, seen)
        """,
}


@pytest.mark.parametrize("what", UNCHANGED)
def test_output_and_exit_code_are_those_of_the_bare_program(observing: Observing, what: str) -> None:
    bare, ran = observing.bare(UNCHANGED[what]), observing.run(UNCHANGED[what])
    assert (ran.code, ran.stdout, ran.stderr) == (bare.code, bare.stdout, bare.stderr)
    assert ran.recording.processes[0].ending == "exited"


IN_C = {
    "_collections",
    "_contextvars",
    "_functools",
    "_json",
    "_socket",
    "_struct",
    "_weakref",
    "atexit",
    "fcntl",
    "gc",
    "mmap",
}
SMALL = {"__future__", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "importlib.machinery"}
SMALL |= {"types", "_types", "warnings", "_py_warnings"}  # which ``importlib`` itself imports


def test_a_program_without_asyncio_imports_nothing_more(observing: Observing) -> None:
    text = """
        import sys
        print(*sorted(sys.modules))
        """
    bare, ran = observing.bare(text), observing.run(text)
    more = set(ran.stdout.split()) - set(bare.stdout.split())
    ours = {name for name in more if name.startswith("_stallscope_agent")}
    assert more - ours <= IN_C | SMALL
    assert len(ours) > 5


def test_functions_that_the_program_replaced_are_not_ours(observing: Observing) -> None:
    ran = observing.run(
        """
        import builtins, gc, os, sys, time
        from truth import *

        def replaced(*args, **options): raise AssertionError("not for you")
        own = ["close", "getpid"] if sys.version_info < (3, 14) else []  # asyncio itself calls them since then
        for module, names in [(time, ["perf_counter_ns", "monotonic_ns", "sleep", "time_ns"]),
                              (os, ["open", "read", "pread", "readlink", "fstat", *own]),
                              (gc, ["collect", "get_objects"]), (builtins, ["open", "print"])]:
            for name in names: setattr(module, name, replaced)
        loops = [named_loop("Patched%d" % number) for number in range(2)]
        def stall(): stall_until_seen()
        async def main():
            for _ in range(3):
                asyncio.get_running_loop().call_soon(stall)
                await asyncio.sleep(0.001)
        for loop in loops: loop.run_until_complete(main())
        alive = bool(agent().alive[0])
        sys.stdout.write(json.dumps({"selects": [loop.selector.selects for loop in loops], "alive": alive}) + "\\n")
        """
    )
    assert ran.told == {"selects": [ran.iterations("Patched0"), ran.iterations("Patched1")], "alive": True}
    assert len([stall for stall in ran.recording.stalls if stall.current and stall.current.name == "stall"]) == 6
    seen = [span.call for stall in ran.recording.stalls for span in stall.spans if span.call]
    assert seen + [timed.call for stall in ran.recording.stalls for timed in stall.calls]
    assert ran.recording.processes[0].ending == "exited"


def test_descriptors_that_the_program_closed_and_used_again_stay_its_own(observing: Observing) -> None:
    ran = observing.run(
        """
        import os
        from truth import *

        with open("mine", "w") as file: file.write("running in 3 4 5 6 7 8 9 10\\n" * 10)
        def close_ours_and_stall():
            os.closerange(200, 4096)
            mine = os.open("mine", os.O_RDONLY)
            for number in list(range(200, 220)) + list(range(900, 920)): os.dup2(mine, number)
            stall_until_seen()
        def stall(): stall_until_seen()
        async def main():
            for handler in (close_ours_and_stall, stall):
                asyncio.get_running_loop().call_soon(handler)
                await asyncio.sleep(0.01)
        loop = named_loop("Mine")
        loop.run_until_complete(main())
        after = named_loop("After")
        after.call_soon(stall)
        after.run_until_complete(asyncio.sleep(0.01))
        numbers = [number for number in map(int, os.listdir("/proc/self/fd")) if number in range(900, 920)]
        tell(mine=sorted(numbers), same=len({os.fstat(number).st_ino for number in numbers}),
             selects=[loop.selector.selects, after.selector.selects], alive=bool(agent().alive[0]))
        """
    )
    selects = [ran.iterations("Mine"), ran.iterations("After")]
    assert ran.told == {"mine": list(range(900, 920)), "same": 1, "selects": selects, "alive": True}
    stalled = [stall.current.name for stall in ran.recording.stalls if stall.current is not None]
    assert {"close_ours_and_stall", "stall"} <= set(stalled)


def test_a_daemon_that_closed_everything_and_started_anew(observing: Observing) -> None:
    ran = observing.run(
        """
        import gc, os, sys
        from truth import *

        first = named_loop("First")
        first.run_until_complete(asyncio.sleep(0.001))
        os.closerange(3, 4096)
        mine = [os.open(__file__, os.O_RDONLY) for _ in range(20)]
        second = named_loop("Second")
        def stall(): stall_until_seen()
        second.call_soon(stall)
        second.run_until_complete(asyncio.sleep(0.001))
        second.close()
        sys.modules["_stallscope_agent"].stop()
        wait_until(lambda: len(os.listdir("/proc/self/task")) == 1)
        gc.collect()
        tell(selects=[first.selector.selects, second.selector.selects],
             mine=[os.fstat(number).st_ino == os.stat(__file__).st_ino for number in mine])
        os._exit(0)
        """
    )
    assert ran.told == {"selects": [ran.iterations("First"), ran.iterations("Second")], "mine": [True] * 20}
    assert "stall" in {stall.current.name for stall in ran.recording.stalls if stall.current is not None}


def test_few_descriptors_are_enough(observing: Observing) -> None:
    ran = observing.run(
        """
        import os, resource
        from truth import *

        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        def stall(): stall_until_seen()
        async def main():
            asyncio.get_running_loop().call_soon(stall)
            await asyncio.sleep(0.01)
        roomy = named_loop("Roomy")
        roomy.run_until_complete(main())
        tight = named_loop("Tight")
        taken = []
        try:
            while True: taken.append(os.open(__file__, os.O_RDONLY))
        except OSError:
            pass
        tight.run_until_complete(main())
        for number in taken: os.close(number)
        tell(selects=[roomy.selector.selects, tight.selector.selects], alive=bool(agent().alive[0]))
        """
    )
    assert ran.told == {"selects": [ran.iterations("Roomy"), ran.iterations("Tight")], "alive": True}
    stalled = {stall.loop_id for stall in ran.recording.stalls if stall.current and stall.current.name == "stall"}
    assert stalled == {ran.loop("Roomy").id, ran.loop("Tight").id}
