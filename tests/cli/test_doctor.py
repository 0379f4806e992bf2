"""``stallscope doctor``: what can be seen, by which way, what is missing, and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from stallscope.attach import checks, diagnosis, methods
from tests.attach.programs import WAITING, program

DOCTOR = (sys.executable, "-m", "stallscope", "doctor")


def asked(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        (*DOCTOR, *words), capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80"}
    )
    return done.returncode, done.stdout, done.stderr


def values(*words: str) -> tuple[int, dict[str, Any]]:
    code, out, err = asked("--json", *words)
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    assert found["schema"] == 1
    return code, found


def answers(found: dict[str, Any]) -> dict[str, tuple[bool, str, str | None]]:
    return {one["what"]: (one["ok"], one["detail"], one["remedy"]) for one in found["findings"]}


def test_a_python_process_is_described_and_can_be_attached_to() -> None:
    with program(sys.executable, "-c", WAITING) as process:
        code, found = values(str(process.pid))
    assert (code, found["attachable"], found["method"]) == (
        0,
        True,
        "remote-exec" if sys.version_info >= (3, 14) else "ptrace",
    )
    target = found["target"]
    assert (target["pid"], target["threads"]) == (process.pid, 1)
    assert target["version"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert answers(found)["interpreter"][0]


def test_a_process_that_is_not_python_is_refused_with_the_remedy_and_exit_code_3() -> None:
    with program("cat", ready=False) as process:
        code, found = values(str(process.pid))
        text_code, text, said = asked(str(process.pid))
    assert (code, found["attachable"], found["method"]) == (3, False, None)
    ok, detail, remedy = answers(found)["interpreter"]
    assert not ok
    assert "not Python" in detail
    assert remedy == "attach needs CPython 3.8 or newer"
    assert (text_code, said) == (3, "")
    assert "attach does not get in" in text


def test_the_table_fits_80_columns_and_is_plain_without_a_terminal() -> None:
    with program(sys.executable, "-c", WAITING) as process:
        code, text, said = asked(str(process.pid))
    assert (code, said) == (0, "")
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert f"stallscope attach {process.pid}" in text


def test_the_machine_is_described_without_a_process() -> None:
    code, found = values()
    assert (code, found["target"]) == (0, None)
    assert {"permission", "architecture", "debugger"} <= set(answers(found))


@pytest.mark.parametrize(
    ("words", "code", "sentence"), [(("x",), 2, "no process number"), (("4194303",), 3, "no process")]
)
def test_wrong_usage(words: tuple[str, ...], code: int, sentence: str) -> None:
    status, out, said = asked(*words)
    assert (status, out, said.count("\n")) == (code, "", 1)
    assert sentence in said


@pytest.mark.parametrize(
    ("scope", "root", "ok", "remedy"),
    [
        (0, False, True, ""),
        (1, False, False, "sysctl kernel.yama.ptrace_scope=0"),
        (2, False, False, "sysctl kernel.yama.ptrace_scope=0"),
        (3, False, False, "without a reboot"),
        (0, True, True, "--cap-add=SYS_PTRACE"),
    ],
)
def test_what_the_kernel_permits(
    scope: int, root: bool, ok: bool, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has no Yama, so its file stands in."""
    monkeypatch.setattr(checks, "ptrace_scope", lambda: scope)
    monkeypatch.setattr(checks, "may_trace_any", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    found = next(one for one in diagnosis.of_host().findings if one.what == "permission")
    assert found.ok is ok
    assert remedy in found.remedy


def test_a_missing_debugger_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = next(one for one in diagnosis.of_host().findings if one.what == "debugger")
    assert not found.ok
    assert "install the package gdb" in found.remedy
    assert set(methods.METHODS) == {"auto", "cooperative", "remote-exec", "ptrace", "debugger"}
