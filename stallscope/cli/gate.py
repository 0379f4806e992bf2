"""``stallscope gate``: refuse a new blocking call before it ships."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stallscope.cli.gate_outputs import Outputs
    from stallscope.cli.project import Project
    from stallscope.gate.policy import Policy
    from stallscope.gate.verdict import Verdict

Current = Annotated[list[Path], typer.Argument(metavar="CURRENT...", help="Recordings of the code to judge.")]
Earlier = Annotated[
    list[Path] | None,
    typer.Option("--baseline", metavar="FILE", help="A recording from before, or a baseline file; repeatable."),
]
MaxStall = Annotated[str | None, typer.Option(metavar="TIME", help="Longest stall (100ms; off: no limit).")]
Share = Annotated[str | None, typer.Option(metavar="SHARE", help="Most of wall time in stalls, such as 1%.")]
PerMinute = Annotated[float | None, typer.Option(metavar="N", help="Most stalls a minute.")]
P99 = Annotated[str | None, typer.Option("--p99", metavar="TIME", help="Longest p99 of the iterations.")]
HandlerMax = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TIME", help="Longest call of a handler; repeatable.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Accept call sites: FILE[:FUNCTION[:CALL[:KIND]]]; repeatable."),
]
Require = Annotated[
    bool | None,
    typer.Option("--require-verdict/--no-require-verdict", help="Leave with 4 when nothing could be shown."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON (schema 1).")]
JUnit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")]
Sarif = Annotated[Path | None, typer.Option("--sarif", metavar="FILE", help="Write SARIF 2.1.0.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write (or add to) a summary.")]


def gate(
    current: Current,
    baseline: Earlier = None,
    max_stall: MaxStall = None,
    stall_share: Share = None,
    stalls_per_minute: PerMinute = None,
    p99: P99 = None,
    handler_max: HandlerMax = None,
    allow: Allow = None,
    require_verdict: Require = None,
    json: Json = False,
    junit: JUnit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
) -> None:
    """Say whether CURRENT is worse than the baseline: new blocking calls first, then budgets, then rates.

    Several recordings a side are taken together. Without --baseline, the project's own file is used
    (stallscope-baseline.jsonl, or what [tool.stallscope.gate] in pyproject.toml names), if it is there.
    Leaves with 1 when something is worse.
    """
    from stallscope.cli.gate_outputs import Outputs
    from stallscope.cli.gate_policy import Asked, policy_of
    from stallscope.cli.project import find_project

    project = find_project(Path.cwd())
    asked = Asked(max_stall, stall_share, stalls_per_minute, p99, handler_max or (), allow or ())
    policy = policy_of(project, asked)
    earlier, absent = _earlier(project.baseline, baseline)
    verdict = _judged(project, policy, current, earlier)
    _print(verdict, Outputs(junit, sarif, markdown), json=json, hint=_hint(absent, current) if absent else "")
    required = project.settings.get("require-verdict", False) if require_verdict is None else require_verdict
    raise typer.Exit(_exit_code(verdict, required=bool(required)))


def _earlier(own: Path, given: list[Path] | None) -> tuple[list[Path], Path | None]:
    """The baselines that are there, and one that is not: a first run has none."""
    from stallscope.cli.gate_sides import is_baseline

    wanted = given or [own]
    absent = [path for path in wanted if not path.exists() and (not given or is_baseline(path))]
    return [path for path in wanted if path not in absent], absent[0] if absent else None


def _judged(project: Project, policy: Policy, current: list[Path], earlier: list[Path]) -> Verdict:
    from stallscope.cli.gate_sides import machine, read_sides
    from stallscope.gate.judge import judge

    sides = read_sides(project, current, earlier)
    whole = policy._replace(allowances=(*policy.allowances, *sides.allowances))
    return judge(sides.runs, sides.before, whole, date.today(), machine())


def _print(verdict: Verdict, outputs: Outputs, *, json: bool, hint: str) -> None:
    from stallscope.cli.output import emit, say, screen
    from stallscope.report import gate_json, gate_terminal

    outputs.write(verdict)
    if json:
        emit(gate_json.render(verdict))
    else:
        width, colour = screen()
        emit(gate_terminal.render(verdict, width=width, colour=colour))
    if hint:
        say(hint)


def _hint(absent: Path, current: list[Path]) -> str:
    files = " ".join(map(str, current))
    return f"there is no baseline yet ({absent}): make one with: stallscope baseline update {files}, and commit it"


def _exit_code(verdict: Verdict, *, required: bool) -> int:
    if verdict.failed:
        return 1
    # A warning hides what could not be shown from the outcome, not from who asks for a verdict.
    shown = verdict.baseline_runs and all(one.outcome != "inconclusive" for one in verdict.results)
    return 4 if required and not shown else 0
