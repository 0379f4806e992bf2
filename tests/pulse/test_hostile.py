"""What would break a careless hook: the program ends as it would bare, and the recording can be read.

A hang shows as ``subprocess.TimeoutExpired`` of the runner.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from stallscope import pulse
from stallscope.recording.nouns import Recording
from tests.end_to_end.observing import bare, observed, recorded, write

pytestmark = pytest.mark.skipif(pulse.unusable_reason() is not None, reason=f"no pulse: {pulse.unusable_reason()}")

JEMALLOC = Path(f"/usr/lib/{platform.machine()}-linux-gnu/libjemalloc.so.2")


def survives(directory: Path, program: str, *words: str) -> Recording:
    """Run the program bare and observed: the same output and exit code; what was recorded."""
    write(directory, "hostile.py", program)
    expected, watched = bare(directory, "hostile.py", *words), observed(directory, "hostile.py", *words)
    assert (watched.code, watched.stdout, watched.stderr) == (expected.code, expected.stdout, expected.stderr)
    recording = recorded(directory)
    assert recording.complete
    assert recording.fidelity.level == "pulse"
    return recording


def test_libraries_loaded_and_unloaded_all_the_time(tmp_path: Path) -> None:
    """The loader's list has an object in it before its words are relocated: they are not for us to write then."""
    recording = survives(
        tmp_path,
        """
        import _ctypes, asyncio, glob, itertools, sysconfig

        async def main():
            found = sorted(glob.glob(sysconfig.get_config_var("DESTSHARED") + "/*.so"))
            for path in itertools.islice(itertools.cycle(found), 1000):
                handle = _ctypes.dlopen(path, 2)
                await asyncio.sleep(0)
                _ctypes.dlclose(handle)

        asyncio.run(main())
        """,
    )
    (loop,) = recording.loops
    assert sum(loop.counts.values()) > 1000


@pytest.mark.parametrize(
    "spawns",
    [
        "pid = os.fork()\n    if pid == 0: os._exit(3)\n    print(os.waitpid(pid, 0)[1])",
        "print(os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', 'exit 3'], os.environ), 0)[1])",
        "print(subprocess.run(['/bin/sh', '-c', 'echo out; exit 3'], stdout=subprocess.PIPE))",
        "print(subprocess.run(['/bin/sh', '-c', 'exit 3'], close_fds=False).returncode)",
        "print(os.system('exit 3'))",
    ],
    ids=["fork", "posix_spawn", "subprocess", "vfork", "system"],
)
def test_children_in_a_stall(tmp_path: Path, spawns: str) -> None:
    program = """
import asyncio, os, subprocess, time

def stall():
    time.sleep(0.02)
    {spawns}
    time.sleep(0.02)

async def main():
    for _ in range(5):
        await asyncio.sleep(0)
        stall()

asyncio.run(main())
"""
    recording = survives(tmp_path, program.replace("{spawns}", spawns))
    assert len([stall for stall in recording.stalls if stall.finished]) >= 5


def test_multiprocessing_in_a_stall(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, multiprocessing, time

        def work(number):
            time.sleep(0.005)
            return number * number

        async def main():
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    time.sleep(0.02)
                    print(method, pool.map(work, range(10)))
                await asyncio.sleep(0)

        if __name__ == "__main__":
            asyncio.run(main())
        """,
    )


def test_a_loop_that_forks_all_the_time(tmp_path: Path) -> None:
    """Neither a fork nor an import may meet a lock of the loader's that the watchdog had."""
    survives(
        tmp_path,
        """
        import asyncio, os

        async def main():
            for _ in range(100):
                pid = os.fork()
                if pid == 0:
                    import _decimal, _ctypes
                    os._exit(0)
                await asyncio.sleep(0)
                assert os.waitpid(pid, 0)[1] == 0
            print("forked")

        asyncio.run(main())
        """,
    )


def test_threads_by_the_thousand(tmp_path: Path) -> None:
    recording = survives(
        tmp_path,
        """
        import asyncio, select, threading

        def live(number):
            with select.epoll() as poller:
                for _ in range(number % 4):
                    poller.poll(0)

        async def main():
            for _ in range(40):
                threads = [threading.Thread(target=live, args=(number,)) for number in range(50)]
                for thread in threads:
                    thread.start()
                await asyncio.sleep(0)
                for thread in threads:
                    thread.join()
            print(threading.active_count())

        asyncio.run(main())
        """,
    )
    (loop,) = [loop for loop in recording.loops if loop.kind == "asyncio"]
    assert sum(loop.counts.values()) >= 40


def test_signals_during_hooked_calls(tmp_path: Path) -> None:
    """Calls are interrupted, their handlers run, and the calls go on (PEP 475), or an exception leaves them."""
    recording = survives(
        tmp_path,
        """
        import asyncio, os, signal, threading, time

        class Enough(Exception): pass
        arrived = []
        def handle(number, frame):
            arrived.append(number)
            time.sleep(0.001)
            if len(arrived) == 30:
                raise Enough

        def stall():
            out, into = os.pipe()
            signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
            begun = time.monotonic()
            time.sleep(0.1)
            print("slept", time.monotonic() - begun >= 0.1, len(arrived) > 3)
            try:
                os.read(out, 1)
            except Enough:
                print("left by its exception")
            signal.setitimer(signal.ITIMER_REAL, 0)
            threading.Timer(0.05, os.write, (into, b"x")).start()
            print(os.read(out, 1))

        async def main():
            await asyncio.sleep(0)
            signal.signal(signal.SIGALRM, handle)
            stall()
            await asyncio.sleep(0)

        asyncio.run(main())
        """,
    )
    assert recording.stalls


def test_keyboard_interrupt_in_a_call(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, os, signal, threading, time

        async def main():
            await asyncio.sleep(0)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # not asyncio's, which lets the call go on
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(30)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )


def test_errno_is_kept(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, ctypes, errno, os

        libc = ctypes.CDLL(None, use_errno=True)

        async def main():
            for number in range(2000):
                if number % 100 == 0:
                    await asyncio.sleep(0)
                assert libc.open(b"/no/such/file", 0) == -1 and ctypes.get_errno() == errno.ENOENT
                assert libc.read(-1, None, 1) == -1 and ctypes.get_errno() == errno.EBADF
                assert libc.rmdir(b"/proc") == -1 and ctypes.get_errno() in (errno.EBUSY, errno.ENOTEMPTY, errno.EACCES)
                try:
                    os.read(999, 1)
                except OSError as error:
                    assert error.errno == errno.EBADF
            print("kept")

        asyncio.run(main())
        """,
    )


def test_hardly_any_descriptors(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, os, resource, time
        limit = len(os.listdir("/proc/self/fd")) + 6
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))

        async def main():
            files = []
            try:
                while True:
                    files.append(os.open("/dev/null", os.O_RDONLY))
            except OSError as error:
                print(error.errno)
            for file in files[2:]:
                os.close(file)
            await asyncio.sleep(0)
            time.sleep(0.03)
            await asyncio.sleep(0)

        asyncio.run(main())
        """,
    )


def test_a_daemon_that_closes_every_descriptor(tmp_path: Path) -> None:
    """While a file of ours is given a high number, its low one may have come to be the program's."""
    survives(
        tmp_path,
        """
        import asyncio, os, time

        async def main():
            for _ in range(20):
                await asyncio.sleep(0.001)
            time.sleep(0.03)
            await asyncio.sleep(0)
            print(sorted(int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) < 3), flush=True)

        import asyncio.unix_events
        os.closerange(3, 4096)
        asyncio.run(main())
        mine = os.open("/dev/null", os.O_RDONLY)
        os.dup2(mine, 900)
        os.dup2(mine, 901)
        asyncio.run(main())
        os.fstat(900), os.fstat(901)
        """,
    )


def test_small_thread_stacks(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, threading, time
        threading.stack_size(64 << 10)

        async def main():
            await asyncio.sleep(0.001)
            open("/proc/self/status").close()
            time.sleep(0.03)
            await asyncio.sleep(0.001)

        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("ended")
        """,
    )


def test_sqlite_shared_by_threads(tmp_path: Path) -> None:
    """A connection has a mutex, which its fsync is called with, while another thread with the GIL waits for that mutex.
    A hook that took the GIL would never get it."""
    survives(
        tmp_path,
        """
        import asyncio, sqlite3, tempfile, threading
        path = tempfile.mkdtemp(dir=".") + "/shared.db"
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE one (number)")

        def insert(count):
            for number in range(count):
                connection.execute("INSERT INTO one VALUES (?)", (number,))

        async def main():
            thread = threading.Thread(target=insert, args=(50,))
            thread.start()
            for _ in range(50):
                insert(1)
                connection.total_changes, connection.in_transaction
                await asyncio.sleep(0)
            thread.join()
            print(connection.execute("SELECT count(*) FROM one").fetchone())

        asyncio.run(main())
        """,
    )


@pytest.mark.parametrize(
    "end", ["os._exit(7)", "os.execv('/bin/sh', ['sh', '-c', 'exit 7'])", "os.abort()", "sys.exit(7)"]
)
def test_the_end_in_the_middle_of_a_stall(tmp_path: Path, end: str) -> None:
    survives(
        tmp_path,
        """
        import asyncio, os, sys, threading, time

        async def main():
            for _ in range(10):
                await asyncio.sleep(0)
            time.sleep(0.03)
            {end}

        print("begun", flush=True)
        asyncio.run(main())
        """.replace("{end}", end),
    )


def test_shutdown_while_another_thread_stalls(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, threading, time

        begun = threading.Event()
        async def main():
            await asyncio.sleep(0.001)
            begun.set()
            time.sleep(60)

        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        begun.wait()
        time.sleep(0.02)
        print("gone")
        """,
    )


def test_other_observers(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, faulthandler, sys, threading, time, tracemalloc
        faulthandler.enable()
        faulthandler.dump_traceback_later(60)
        tracemalloc.start(8)
        lines = set()

        def trace(frame, event, argument):
            if frame.f_code.co_filename == __file__:
                lines.add(frame.f_lineno)
            return trace

        def stall():
            time.sleep(0.02)
            sum(number for number in range(20000))

        async def main():
            for _ in range(3):
                await asyncio.sleep(0)
                stall()

        sys.settrace(trace)
        asyncio.run(main())
        sys.settrace(None)
        faulthandler.cancel_dump_traceback_later()
        print(sorted(lines), tracemalloc.get_traced_memory()[0] > 0)
        """,
    )


def test_subinterpreters(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
        import asyncio, time
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters

        async def main():
            for _ in range(3):
                inner = interpreters.create()
                interpreters.run_string(inner, "import time; time.sleep(0.02); open('/dev/null').close()")
                interpreters.destroy(inner)
                await asyncio.sleep(0)
            print("ended")

        asyncio.run(main())
        """,
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls' numbers are those of x86-64")
def test_seccomp(tmp_path: Path) -> None:
    """Strict filters, as sandboxes set them: what is not allowed fails with EPERM, for us as for the program."""
    survives(
        tmp_path,
        """
        import asyncio, ctypes, os, struct, time

        # BPF: load the call's number; some are refused with EPERM, the rest goes on
        def step(code, yes, no, value): return struct.pack("HBBI", code, yes, no, value)
        refused = (434, 304, 28, 186, 310)  # pidfd_open, open_by_handle_at, madvise, gettid, process_vm_readv
        program = step(0x20, 0, 0, 0)
        for at, number in enumerate(refused):
            program += step(0x15, len(refused) - at, 0, number)
        program += step(0x06, 0, 0, 0x7FFF0000) + step(0x06, 0, 0, 0x00050001)
        filters = ctypes.create_string_buffer(program)
        libc = ctypes.CDLL(None, use_errno=True)
        given = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(filters))
        print(libc.prctl(38, 1, 0, 0, 0), libc.prctl(22, 2, ctypes.create_string_buffer(given)))

        async def main():
            for _ in range(5):
                await asyncio.sleep(0.001)
                time.sleep(0.02)

        asyncio.run(main())
        """,
    )


@pytest.mark.skipif(importlib.util.find_spec("memray") is None, reason="no memray here: pip install memray")
def test_another_patcher(tmp_path: Path) -> None:
    """memray changes the same words as we do, while ours are changed, and puts them back."""
    survives(
        tmp_path,
        """
        import asyncio, memray, tempfile, time

        async def main():
            for _ in range(3):
                with memray.Tracker(tempfile.mkdtemp(dir=".") + "/memory.bin"):
                    blocks = [bytes(100000) for _ in range(50)]
                    time.sleep(0.02)
                    import _decimal
                    await asyncio.sleep(0)
            print("tracked")

        asyncio.run(main())
        """,
    )


@pytest.mark.skipif(not JEMALLOC.exists(), reason="no libjemalloc.so.2 here: apt-get install libjemalloc2")
def test_a_preloaded_allocator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", str(JEMALLOC))
    survives(
        tmp_path,
        """
        import asyncio, time

        async def main():
            for _ in range(10):
                blocks = [bytes(1 << size) for size in range(20)]
                time.sleep(0.02)
                await asyncio.sleep(0)
            print("jemalloc" in open("/proc/self/maps").read())

        asyncio.run(main())
        """,
    )


HOLDS_GIL = """
#include <unistd.h>
int holds_gil(int fd) { char byte; return (int)read(fd, &byte, 1); }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_read_with_the_gil_held(tmp_path: Path) -> None:
    """ctypes.PyDLL keeps the GIL, as a careless extension does: nobody can take a stack before the call returns."""
    (tmp_path / "holds.c").write_text(HOLDS_GIL)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "holds.so", "holds.c"], cwd=tmp_path, check=True)
    recording = survives(
        tmp_path,
        """
        import asyncio, ctypes, os, subprocess
        holds = ctypes.PyDLL("./holds.so")

        async def main():
            for _ in range(5):
                await asyncio.sleep(0)
                child = subprocess.Popen("sleep 0.05; echo", shell=True, stdout=subprocess.PIPE)
                print(holds.holds_gil(child.stdout.fileno()), child.wait())
                await asyncio.sleep(0)

        asyncio.run(main())
        """,
    )
    assert "read" in {call.call.name for stall in recording.stalls for call in stall.calls}
