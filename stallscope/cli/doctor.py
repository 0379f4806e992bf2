"""``stallscope doctor [PID]``: what can be seen from here, by which method, and what is missing."""

from __future__ import annotations

import json as json_text
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stallscope.attach.diagnosis import Diagnosis, Finding


def doctor(
    pid: Annotated[str | None, typer.Argument(metavar="[PID]", help="The process that is to be looked into.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON (schema 1).")] = False,
) -> None:
    """Say what stallscope can see of a process, or of any, from here; what is missing; and how to get it.

    Nothing is touched. Exit code 3 when attach would not get into the process.
    """
    from stallscope.attach import diagnosis
    from stallscope.attach.facts import facts_of

    found = diagnosis.of_host() if pid is None else diagnosis.of_process(facts_of(pid))
    found.findings.extend(_pulse())
    _print(found, asked=pid, as_json=json)
    if pid is not None and not found.is_attachable:
        raise typer.Exit(3)


def _print(found: Diagnosis, *, asked: str | None, as_json: bool) -> None:
    from stallscope.cli.output import emit, screen
    from stallscope.report import diagnosis as report

    if as_json:
        emit(json_text.dumps(_values(found), indent=1))
        return
    width, colour = screen()
    title = "this machine" if asked is None else f"process {asked} ({found.target.get('name', '?')})"
    rows = [(one.what, one.ok, one.detail, one.remedy) for one in found.findings]
    emit(report.render(title, rows, _verdict(found, asked), width=width, colour=colour))


def _verdict(found: Diagnosis, asked: str | None) -> str:
    if asked is None:
        return "stallscope doctor PID looks at one process"
    if not found.is_attachable:
        return "attach does not get in"
    return f"attach gets in, by {found.method}: stallscope attach {asked}"


def _values(found: Diagnosis) -> dict[str, Any]:
    checks = [
        {"what": one.what, "ok": one.ok, "detail": one.detail, "remedy": one.remedy or None} for one in found.findings
    ]
    return {
        "schema": 1, "target": found.target or None, "attachable": found.is_attachable, "method": found.method,
        "findings": checks,
    }  # fmt: skip


def _pulse() -> list[Finding]:
    """Whether the pulse is usable here; nothing where this build of stallscope has none."""
    from stallscope.attach.diagnosis import Finding

    try:
        why = import_module("stallscope.pulse").unusable_reason()
    except (ImportError, AttributeError):
        return []
    return [Finding("pulse", why is None, why or "usable")]
