"""The pulse's audit hook: events that are wanted, in the interpreter that wants them, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from stallscope import pulse

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython before 3.11 has no tracing to switch off"),
    pytest.mark.skipif(pulse.unusable_reason() is not None, reason=f"no pulse: {pulse.unusable_reason()}"),
]

BEGINNING = f"""
import json, os, sys
from stallscope.agent.pulse import load

heard = []

def hook(event, arguments):
    heard.append([event, str(arguments[0])])
    if arguments[0] == "/no":
        raise PermissionError("not that one")

loaded = load({str(pulse.LIBRARY)!r})
assert loaded.listen(["open", "os.mkdir"], hook)
"""


def told(program: str) -> Any:
    """What the program prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_hears_what_it_asked_for_and_no_more() -> None:
    program = """
open("/dev/null").close()
os.listdir("/")
sys.audit("opened", 1)
sys.audit("ope", 1)
print(json.dumps(heard))
"""
    assert told(program) == [["open", "/dev/null"]]


def test_what_the_hook_raises_the_program_gets() -> None:
    program = """
try:
    open("/no")
except PermissionError as error:
    print(json.dumps(str(error)))
"""
    assert told(program) == "not that one"


def test_it_is_deaf_once_the_pulse_has_stopped_and_hears_again() -> None:
    program = """
loaded.stop()
open("/dev/null").close()
deaf = list(heard)
assert loaded.listen(["open"], hook)
open("/dev/null").close()
print(json.dumps([deaf, heard]))
"""
    assert told(program) == [[], [["open", "/dev/null"]]]


def test_nobody_traces_it() -> None:
    program = """
traced = []
sys.settrace(lambda frame, event, argument: traced.append(frame.f_code.co_name))
open("/dev/null").close()
sys.settrace(None)
print(json.dumps([len(heard), "hook" in traced]))
"""
    assert told(program) == [1, False]


def test_other_interpreters_are_not_its_business() -> None:
    program = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
del heard[:]
interpreters.run_string(other, "open('/dev/zero').close()")
interpreters.destroy(other)
open("/dev/null").close()
print(json.dumps([one for one in heard if one[1].startswith("/dev/")]))
"""
    assert told(program) == [["open", "/dev/null"]]


def test_the_interpreter_ends_with_it() -> None:
    program = """
class Late:
    def __del__(self):
        open("/dev/null").close()

sys.late = Late()
print(json.dumps(1))
"""
    assert told(program) == 1
