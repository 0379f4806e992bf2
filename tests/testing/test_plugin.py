"""``pytest --stallscope`` on small suites of its own: what fails, what does not, and what is left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stallscope import __version__
from stallscope.pulse import NO_PULSE_VARIABLE
from stallscope.recording.reader import read

APP = """
import asyncio, os, socket, subprocess, threading, time

async def stall():
    time.sleep(0.4)

async def load():
    with open(os.devnull) as file:
        return file.read()

async def listing():
    return os.listdir("/")

async def quick():
    await asyncio.sleep(0)
"""
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
ROOMY = "--stallscope-max-stall=50ms"
"""Of 400 ms asleep a loaded machine leaves some that are surely the program's own; of 120 it once left less than 50."""
Suite = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Runs pytest on one file of tests, with the plugin unless told otherwise."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "tmp").mkdir()

    def run(
        tests: str, *words: str, ini: str = "", plugin: bool = True, pulse: bool = True
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pytest.ini").write_text(INI + ini)
        (tmp_path / "test_it.py").write_text(
            f"import asyncio, os, sys, time, unittest\nimport pytest\nimport app\n{tests}"
        )
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "STALLSCOPE"))
        } | ({} if pulse else {NO_PULSE_VARIABLE: "1"})
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(["--stallscope"] if plugin else []), *words],
            cwd=tmp_path, env={**environment, "COLUMNS": "100", "TMPDIR": str(tmp_path / "tmp")},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return run


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Of the closing line: ``{"passed": 2, "failed": 1}``."""
    last = done.stdout.rstrip().splitlines()[-1]
    return {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|error|xfailed|skipped)", last)}


COUNTERPARTS = {
    "pytest-asyncio": "async def test_one():\n    await app.{call}()\n",
    "anyio": (
        "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
        "@pytest.mark.anyio\nasync def test_one(anyio_backend):\n    await app.{call}()\n"
    ),
    "unittest": (
        "class TestOne(unittest.IsolatedAsyncioTestCase):\n    async def test_one(self):\n        await app.{call}()\n"
    ),
    "by hand": "def test_one():\n    asyncio.run(app.{call}())\n",
}
OTHERS = {
    "uvloop": "import uvloop\ndef test_one():\n    uvloop.run(app.stall())\n",
    "trio": (
        "@pytest.fixture\ndef anyio_backend():\n    return 'trio'\n"
        "@pytest.mark.anyio\nasync def test_one(anyio_backend):\n    await app.stall()\n"
    ),
}
"""The first is known by its waits alone; the other's are a worker thread's, since anyio runs it as a guest."""


@pytest.mark.parametrize("kind", COUNTERPARTS)
def test_a_stall_fails_its_test_with_line_call_and_remedy(suite: Suite, tmp_path: Path, kind: str) -> None:
    ini = "" if kind != "anyio" else "asyncio_mode = strict\n"
    done = suite(COUNTERPARTS[kind].format(call="stall"), *(["-o", "asyncio_mode=strict"] if ini else []))
    assert outcomes(done) == {"failed": 1}, done.stdout
    assert re.search(r"The event loop stood still for \d{3} ms, and may for 100 ms", done.stdout)
    assert "app.py:5 stall:  time.sleep(0.4)" in done.stdout
    assert "await asyncio.sleep(seconds)" in done.stdout
    assert re.search(r"\d{3} ms +\d+ stalls? +test_it.py::", done.stdout)
    recording = read(tmp_path / "pytest.stall")
    assert recording.complete
    assert max(stall.duration_ns for stall in recording.stalls) > 390_000_000


@pytest.mark.parametrize("kind", OTHERS)
def test_a_loop_that_is_not_asyncios_is_measured(suite: Suite, tmp_path: Path, kind: str) -> None:
    done = suite(OTHERS[kind], "-o", "asyncio_mode=strict")
    assert outcomes(done) == {"failed": 1}, done.stdout
    assert "app.py:5 stall:  time.sleep(0.4)" in done.stdout
    assert [loop.kind for loop in read(tmp_path / "pytest.stall").loops] == [kind]


def test_without_the_pulse_stalls_are_found_and_the_recording_says_what_it_lacks(suite: Suite, tmp_path: Path) -> None:
    done = suite(COUNTERPARTS["by hand"].format(call="stall"), pulse=False)
    assert outcomes(done) == {"failed": 1}, done.stdout
    assert "app.py:5 stall:  time.sleep(0.4)" in done.stdout
    lacking = {missing.what: missing.why for missing in read(tmp_path / "pytest.stall").fidelity.missing}
    assert NO_PULSE_VARIABLE in lacking["calls timed exactly"]


@pytest.mark.parametrize("kind", COUNTERPARTS)
def test_a_blocking_call_fails_its_test_however_fast(suite: Suite, kind: str) -> None:
    words = ["--stallscope-blocking=error", *(["-o", "asyncio_mode=strict"] if kind == "anyio" else [])]
    done = suite(COUNTERPARTS[kind].format(call="load"), *words)
    assert outcomes(done) == {"failed": 1}, done.stdout
    assert "Blocking call open(/dev/null) on the event loop, at app.py:8 in load" in done.stdout
    assert "await asyncio.to_thread(load, ...)" in done.stdout
    assert outcomes(suite(COUNTERPARTS[kind].format(call="load"), *words[1:])) == {"passed": 1}


def test_markers_say_what_a_test_may_do(suite: Suite) -> None:
    done = suite(
        "@pytest.mark.stallscope(max_stall='500ms')\nasync def test_longer():\n    await app.stall()\n"
        "@pytest.mark.stallscope(max_stall='off')\nasync def test_off():\n    await app.stall()\n"
        "@pytest.mark.stallscope(allow=['app.py:stall'])\nasync def test_allowed():\n    await app.stall()\n"
        "@pytest.mark.stallscope(max_stall='20ms')\nasync def test_shorter():\n    await app.stall()\n"
        "@pytest.mark.stallscope(blocking='error')\nasync def test_blocking():\n    await app.load()\n"
        "@pytest.mark.stallscope(blocking='error', allow=['app.py:load:open'])\nasync def test_known():\n"
        "    await app.load()\n"
        "@pytest.mark.stallscope(allow=['app.py:load'])\nclass TestClass:\n"
        "    @pytest.mark.stallscope(blocking='error')\n    async def test_inherited(self):\n        await app.load()\n"
    )
    assert outcomes(done) == {"passed": 5, "failed": 2}, done.stdout
    assert set(re.findall(r"^FAILED test_it.py::(\w+)", done.stdout, re.M)) == {"test_shorter", "test_blocking"}


def test_the_ini_file_has_the_defaults(suite: Suite) -> None:
    ini = "stallscope_blocking = error\nstallscope_max_stall = 50ms\nstallscope_allow = app.py:listing\n"
    tests = (
        "async def test_load():\n    await app.load()\n"
        "async def test_listing():\n    await app.listing()\n"
        "async def test_stall():\n    await app.stall()\n"
    )
    assert outcomes(suite(tests, ini=ini)) == {"passed": 1, "failed": 2}
    words = ("--stallscope-blocking=record", "--stallscope-max-stall=off")
    assert outcomes(suite(tests, *words, ini=ini)) == {"passed": 3}


def test_what_only_looks_like_blocking_does_not_fail(suite: Suite) -> None:
    done = suite(
        "async def test_own_file(tmp_path):\n    (tmp_path / 'x').write_text('prepared')\n"
        "async def test_thread():\n    await asyncio.to_thread(open, os.devnull)\n"
        "async def test_thread_of_ours():\n    await asyncio.to_thread(lambda: time.sleep(0.01))\n"
        "async def test_child():\n    child = await asyncio.create_subprocess_exec('true')\n    await child.wait()\n"
        "async def test_connection():\n"
        "    server = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0)\n"
        "    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "    await reader.read()\n    writer.close()\n    server.close()\n"
        "async def test_import():\n    import wave\n"
        "async def test_traceback():\n    import traceback\n"
        "    try:\n        raise ValueError\n    except ValueError:\n        traceback.format_exc()\n"
        "def test_no_loop():\n    time.sleep(0.01)\n    open(os.devnull).close()\n",
        "--stallscope-blocking=error",
    )
    assert outcomes(done) == {"passed": 8}, done.stdout


def test_the_start_of_a_thread_is_no_stall_of_the_test_and_a_wait_for_it_is(suite: Suite) -> None:
    done = suite(
        "import threading\n"
        "class Late(threading.Thread):\n"
        "    def _bootstrap_inner(self):\n"
        "        time.sleep(0.4)\n"
        "        super()._bootstrap_inner()\n"
        "async def test_start():\n    Late().start()\n"
        "async def test_pool():\n    await asyncio.to_thread(len, '')\n"
        "async def test_join():\n"
        "    thread = threading.Thread(target=time.sleep, args=(0.4,))\n"
        "    thread.start()\n"
        "    thread.join()\n",
        ROOMY,
    )
    assert outcomes(done) == {"failed": 1, "passed": 2}, done.stdout
    assert "FAILED test_it.py::test_join" in done.stdout
    assert re.search(r"[\d.]+ ms +1 stall +test_it.py::test_start", done.stdout), done.stdout


def test_a_test_that_fails_already_keeps_its_own_reason(suite: Suite) -> None:
    done = suite(
        "async def test_both():\n    await app.stall()\n    assert 1 == 2\n"
        "@pytest.mark.xfail\nasync def test_expected():\n    await app.stall()\n    raise ValueError\n"
        "@pytest.mark.skip\nasync def test_skipped():\n    await app.stall()\n"
    )
    assert outcomes(done) == {"failed": 1, "xfailed": 1, "skipped": 1}
    assert "assert 1 == 2" in done.stdout
    assert "The event loop stood still" in done.stdout


@pytest.mark.parametrize("words", [(), ("-n", "1")], ids=["one process", "xdist"])
@pytest.mark.parametrize("lost", ["the ring is full", "on the way"])
def test_a_stall_whose_details_do_not_come_is_said(
    suite: Suite, tmp_path: Path, lost: str, words: tuple[str, ...]
) -> None:
    took = "False" if lost == "the ring is full" else "True"
    (tmp_path / "conftest.py").write_text(
        f"from stallscope.agent.memory import Memory\nMemory.put_record = lambda self, text: {took}\n"
    )
    done = suite("async def test_one():\n    await app.stall()\n", ROOMY, *words)
    assert outcomes(done) == {"passed": 1}, done.stdout
    told = r"over the budget, but not judged \(no details came.*\n +\S+ ms +1 stall +test_it.py::test_one"
    assert re.search(told, done.stdout), done.stdout


def test_a_stall_of_a_fixture_is_the_fixtures(suite: Suite) -> None:
    done = suite(
        "import pytest_asyncio\n@pytest_asyncio.fixture\nasync def slow():\n    await app.stall()\n    yield\n"
        "async def test_one(slow):\n    pass\nasync def test_two():\n    await app.quick()\n",
        ROOMY,
    )
    assert outcomes(done) == {"passed": 1, "error": 1}, done.stdout


def test_xdist_makes_one_recording_of_all_workers(suite: Suite, tmp_path: Path) -> None:
    tests = "".join(f"async def test_{n}():\n    await app.{'stall' if n % 4 == 0 else 'load'}()\n" for n in range(12))
    done = suite(tests, "-n", "2", "--stallscope-max-stall=100ms")
    assert outcomes(done) == {"passed": 9, "failed": 3}, done.stdout
    assert "test_it.py::test_0" in done.stdout.split("longest iterations of an event loop:")[1]
    recording = read(tmp_path / "pytest.stall")
    assert len(recording.processes) == 2
    assert len(recording.stalls) >= 3
    assert sum(site.hits for site in recording.call_sites if site.call.name == "open") == 9
    assert recording.recorder == __version__
    assert {"open", "connect"} <= (recording.counted_calls or set())
    assert os.listdir(tmp_path / "tmp") == [] or not [name for name in os.listdir(tmp_path / "tmp") if "stall" in name]


def test_unused_it_imports_nothing(suite: Suite, tmp_path: Path) -> None:
    done = suite(
        "def test_nothing():\n"
        "    ours = {name for name in sys.modules if name.startswith('stallscope')}\n"
        "    assert ours <= {'stallscope', 'stallscope.pytest_plugin'}\n"
        "    assert not {'rich', 'psutil', 'hdrh', 'sqlite3'} & set(sys.modules)\n",
        plugin=False,
    )
    assert outcomes(done) == {"passed": 1}, done.stdout
    assert not (tmp_path / "pytest.stall").exists()


def test_without_a_stall_it_imports_neither_the_command_line_nor_the_analysis(suite: Suite) -> None:
    done = suite(
        "async def test_quick():\n    await app.quick()\n"
        "def test_modules():\n"
        "    assert 'stallscope.testing.suite' in sys.modules\n"
        "    assert not {'rich', 'typer', 'psutil', 'hdrh', 'stallscope.analysis.examine'} & set(sys.modules)\n",
    )
    assert outcomes(done) == {"passed": 2}, done.stdout


def test_pytest_does_not_rewrite_our_modules(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import pytest\npytest.register_assert_rewrite('stallscope')\n")
    done = suite(
        "def test_loaders():\n"
        "    ours = {name: module for name, module in sys.modules.items() if name.startswith('stallscope.testing.')}\n"
        "    assert ours\n"
        "    assert {type(module.__loader__).__name__ for module in ours.values()} == {'SourceFileLoader'}\n"
        "    assert type(app.__loader__).__name__ == 'SourceFileLoader'\n",
    )
    assert outcomes(done) == {"passed": 1}, done.stdout


def test_it_leaves_the_process_as_it_was(suite: Suite) -> None:
    done = suite(
        "import threading\nfrom asyncio.events import Handle\n"
        "async def test_threads():\n    assert threading.enumerate() == [threading.main_thread()]\n",
    )
    assert outcomes(done) == {"passed": 1}, done.stdout
    assert re.search(r"[1-9]\d* iterations, \d+ stalls, recorded in", done.stdout)


def test_a_session_without_loops_says_so_and_passes(suite: Suite) -> None:
    done = suite("def test_nothing():\n    pass\n")
    assert outcomes(done) == {"passed": 1}
    assert "0 iterations" in done.stdout


@pytest.mark.parametrize(
    ("tests", "words", "ini", "says"),
    [
        ("@pytest.mark.stallscope('50ms')\ndef test_x(): pass\n", (), "", "an argument without a name"),
        ("@pytest.mark.stallscope(stall='5ms')\ndef test_x(): pass\n", (), "", "has 'stall'; it takes max_stall"),
        ("@pytest.mark.stallscope(max_stall='5')\ndef test_x(): pass\n", (), "", "'5' is no duration: it has no unit"),
        ("@pytest.mark.stallscope(max_stall='5ms')\ndef test_x(): pass\n", (), "", "is under the threshold (10 ms)"),
        ("@pytest.mark.stallscope(blocking='maybe')\ndef test_x(): pass\n", (), "", "is one of off, record, error"),
        ("@pytest.mark.stallscope(allow='app.py')\ndef test_x(): pass\n", (), "", "allow is a list"),
        ("def test_x(): pass\n", ("--stallscope-max-stall=5",), "", "'5' is no duration"),
        ("def test_x(): pass\n", (), "stallscope_blocking = maybe\n", "'maybe', not one of"),
        ("def test_x(): pass\n", (), "stallscope_threshold = soon\n", "stallscope_threshold 'soon' is no duration"),
        ("def test_x(): pass\n", ("--stallscope-output=no/such/place",), "", "does not exist"),
    ],
)  # fmt: skip
def test_what_is_wrong_stops_the_session_with_one_sentence(
    suite: Suite, tests: str, words: tuple[str, ...], ini: str, says: str
) -> None:
    done = suite(tests, *words, ini=ini)
    assert done.returncode == 4, done.stdout + done.stderr
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_a_process_that_run_observes_is_refused(suite: Suite, tmp_path: Path) -> None:
    suite("def test_x(): pass\n", plugin=False)
    done = subprocess.run(
        [sys.executable, "-m", "stallscope", "run", "-o", "run.stall", "-m", "pytest", "--stallscope"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 4
    assert "observed by stallscope run already" in done.stderr + done.stdout


def test_a_test_that_a_child_runs_is_not_judged_there(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import os, pytest\nfrom _pytest.runner import runtestprotocol\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_protocol(item, nextitem):\n"
        "    if item.name != 'test_forked':\n        return None\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(10 + sum(report.failed for report in runtestprotocol(item, log=False, nextitem=nextitem)))\n"
        "    print('the child left with', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    return True\n"
    )
    done = suite(
        "async def test_forked():\n    await app.stall()\nasync def test_after():\n    await app.stall()\n",
        "-s",
        "-n0",
        ROOMY,
    )
    assert "the child left with 10" in done.stdout, done.stdout + done.stderr
    recording = read(tmp_path / "pytest.stall")
    assert recording.complete, done.stdout
    assert len(recording.processes) == 1
    assert len([one for one in recording.stalls if one.duration_ns > 390_000_000]) == 1, done.stdout


def test_a_session_inside_a_session_is_refused_and_harms_neither(suite: Suite, tmp_path: Path) -> None:
    done = suite(
        "pytest_plugins = 'pytester'\n"
        "def test_measured(pytester):\n"
        "    pytester.makepyfile('def test_x(): pass')\n"
        "    inner = pytester.runpytest_inprocess('--stallscope')\n"
        "    assert inner.ret == pytest.ExitCode.USAGE_ERROR\n"
        "    assert 'measures this process already' in inner.stderr.str() + inner.stdout.str()\n"
        "    assert not (pytester.path / 'pytest.stall').exists()\n"
        "def test_plain(pytester):\n"
        "    pytester.makepyfile('def test_x(): pass')\n"
        "    pytester.runpytest_inprocess().assert_outcomes(passed=1)\n"
        "async def test_after():\n    await app.stall()\n",
        ROOMY,
    )
    assert outcomes(done) == {"passed": 2, "failed": 1}, done.stdout
    assert len(read(tmp_path / "pytest.stall").stalls) == 1


@pytest.mark.parametrize(
    ("end", "code"), [("os._exit(3)", 3), ("raise KeyboardInterrupt", 2), ("os.kill(os.getpid(), 9)", -9)]
)
def test_a_session_that_breaks_off_leaves_a_recording(suite: Suite, tmp_path: Path, end: str, code: int) -> None:
    tests = "async def test_stall():\n    await app.stall()\n    await asyncio.sleep(1.5)\n"
    done = suite(f"{tests}def test_end():\n    {end}\n")
    assert done.returncode == code, done.stdout + done.stderr
    assert [stall.duration_ns > 390_000_000 for stall in read(tmp_path / "pytest.stall").stalls] == [True]


def test_a_clock_of_the_tests_own_is_not_ours(suite: Suite) -> None:
    done = suite(
        "@pytest.fixture\ndef stopped(monkeypatch):\n"
        "    for name in ('monotonic', 'monotonic_ns', 'time'):\n"
        "        monkeypatch.setattr(time, name, lambda: 1)\n"
        "def test_stopped(stopped):\n    loop = asyncio.new_event_loop()\n"
        "    loop.time = iter(range(10**6)).__next__\n"
        "    loop.run_until_complete(app.stall())\n    loop.close()\n"
    )
    assert outcomes(done) == {"failed": 1}, done.stdout
    assert "The event loop stood still" in done.stdout


def test_names_of_tests_may_hold_anything(suite: Suite) -> None:
    done = suite(
        "@pytest.mark.parametrize('odd', ['a b', '\\n', '\\u00e9', '\\udc80', '[red]x[/red]', '::', '\\x1b[31m'])\n"
        "async def test_odd(odd):\n    await app.stall()\n"
    )
    assert outcomes(done) == {"failed": 7}, done.stdout
    assert "stall   test_it.py::test_odd[" in done.stdout.split("longest iterations of an event loop:")[1]
