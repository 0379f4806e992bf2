"""What a project asks of its gate: from pyproject.toml, and from the command line, which has the last word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from stallscope.cli.project import Project
from stallscope.cli.units import parse_duration_ns, parse_share
from stallscope.errors import UnreadableInput
from stallscope.gate.policy import Allowance, Budgets, Policy

KEYS = (
    "allow",
    "baseline",
    "handler-max",
    "max-stall",
    "p99",
    "require-verdict",
    "stall-share",
    "stalls-per-minute",
)
OFF = "off"


@dataclass(frozen=True, slots=True)
class Asked:
    """Budgets as they were written on the command line; None or empty: not given."""

    max_stall: str | None = None
    stall_share: str | None = None
    stalls_per_minute: float | None = None
    p99: str | None = None
    handler_max: Sequence[str] = ()
    allow: Sequence[str] = ()


def policy_of(project: Project, asked: Asked) -> Policy:
    """The project's policy.

    Raises UnreadableInput for a setting that there is not, or a budget that is no duration or share.
    """
    settings = project.settings
    unknown = sorted(set(settings) - set(KEYS))
    if unknown:
        raise UnreadableInput(
            f"[tool.stallscope.gate] in {project.root}/pyproject.toml has the setting {unknown[0]!r}, which there is"
            f" not: there are {', '.join(KEYS)}"
        )
    written = Asked(
        max_stall=_text(settings, "max-stall"),
        stall_share=_text(settings, "stall-share"),
        stalls_per_minute=settings.get("stalls-per-minute"),
        p99=_text(settings, "p99"),
        handler_max=[f"{name}={limit}" for name, limit in _table(settings, "handler-max").items()],
    )
    budgets = _budgets(_budgets(Budgets(), written, "[tool.stallscope.gate] "), asked, "--")
    allowances = [Allowance(pattern, "given on the command line") for pattern in asked.allow]
    return Policy(budgets, (*allowances, *_allowances(settings.get("allow", []))))


def _budgets(before: Budgets, asked: Asked, prefix: str) -> Budgets:
    found = before
    if asked.max_stall is not None:
        found = found._replace(max_stall_ns=_duration(asked.max_stall, f"{prefix}max-stall"))
    if asked.stall_share is not None:
        found = found._replace(stall_share=parse_share(asked.stall_share, f"{prefix}stall-share"))
    if asked.stalls_per_minute is not None:
        found = found._replace(stalls_per_minute=_rate(asked.stalls_per_minute, f"{prefix}stalls-per-minute"))
    if asked.p99 is not None:
        found = found._replace(p99_ns=_duration(asked.p99, f"{prefix}p99"))
    handlers = dict(_handler(text, f"{prefix}handler-max") for text in asked.handler_max)
    return found._replace(handler_max_ns={**found.handler_max_ns, **handlers})


def _duration(text: str, what: str) -> int | None:
    return None if text.strip() == OFF else parse_duration_ns(text, what)


def _rate(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UnreadableInput(f"{what} {value!r} is no number of stalls a minute: give one such as 6 or 0.5")
    return float(value)


def _handler(text: str, what: str) -> tuple[str, int]:
    name, sign, limit = text.rpartition("=")
    if not sign or not name.strip():
        raise UnreadableInput(f'{what} {text!r} names no handler with its limit: write "NAME=20ms"')
    return name.strip(), parse_duration_ns(limit, f"{what} {name.strip()}")


def _allowances(entries: Any) -> Iterable[Allowance]:
    if not isinstance(entries, list):
        raise UnreadableInput("[tool.stallscope.gate] allow is no list: write [[tool.stallscope.gate.allow]] for each")
    for entry in entries:
        if not isinstance(entry, dict) or not _is_text(entry.get("site")) or not _is_text(entry.get("reason")):
            raise UnreadableInput(
                "[[tool.stallscope.gate.allow]] needs a site (such as app/db.py:connect) and a reason"
            )
        yield Allowance(entry["site"], entry["reason"], as_date(entry.get("until")))


def as_date(value: Any) -> date | None:
    """The last day of an allowance.  Raises UnreadableInput for what is no date."""
    if value is None or (isinstance(value, date) and type(value) is date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise UnreadableInput(f"until {value!r} is no date: give one such as 2027-01-31") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _text(settings: Mapping[str, Any], key: str) -> str | None:
    value = settings.get(key)
    if value is None or isinstance(value, str):
        return value
    raise UnreadableInput(f'[tool.stallscope.gate] {key} = {value!r} is no text: write it as "10ms" or "1%"')


def _table(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = settings.get(key, {})
    if not isinstance(value, dict):
        raise UnreadableInput(f'[tool.stallscope.gate] {key} is no table: write {key} = {{ "NAME" = "20ms" }}')
    return value
