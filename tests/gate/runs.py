"""Runs for the tests of the gate: recordings made by hand, corrected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from stallscope.gate.judge import Before, judge
from stallscope.gate.policy import Budgets, Policy
from stallscope.gate.runs import Run, run_of
from stallscope.gate.verdict import Result, Verdict
from stallscope.recording.nouns import Call, CallSite, HandlerCounts, Process, Recording, Stall
from tests.analysis.recordings import HANDLER, MS, THRESHOLD, path, recording, sampled, stack

DAY = date(2026, 6, 1)
NO_LIMITS = Policy(Budgets(max_stall_ns=None))
OPEN = path("openat", "/etc/shop.conf")
OLD = path("write", "/var/log/shop.log")
STARTS = iter(range(10**9))


def relative(file: str) -> str:
    """The tests' project is /srv."""
    return file.removeprefix("/srv/")


def site(call: Call, line: int = 20, hits: int = 5, function: str = "Server.load", total_ns: int = MS) -> CallSite:
    """A call site of the server."""
    return CallSite(1, HANDLER, call, stack(line, function), hits, total_ns, total_ns // hits)


def computing(ns: int, **changes: float) -> Stall:
    """A stall that computed."""
    return Stall(1, 0, ns, spans=sampled(ns, None, stack(30, "Server.work"), state="R", cpu=1.0, **changes))  # type: ignore[arg-type]


def made(
    stalls: Sequence[Stall] = (), sites: Iterable[CallSite] = (), python: str = "CPython 3.11.7", **changes: object
) -> Recording:
    """A recording of its own: no two are the same one."""
    started_ns = -1 - next(STARTS)
    process = Process(1, 100, 1, "python server.py", python, 0)
    values: dict[str, Any] = {"started_ns": started_ns, "call_sites": tuple(sites), "processes": (process,), **changes}
    return recording(stalls, handlers=(HandlerCounts(1, HANDLER, {500: 10_000}),), **values)


def run(
    stalls: Sequence[Stall] = (), sites: Iterable[CallSite] = (), threshold_ns: int = THRESHOLD, **changes: object
) -> Run:
    """A run made by hand."""
    return run_of(made(stalls, sites, **changes), threshold_ns, relative)  # type: ignore[arg-type]


def before(*runs: Run) -> Before:
    """A baseline of these runs."""
    return Before(tuple(one.facts for one in runs), frozenset(place for one in runs for place in one.sites))


def verdict(current: Sequence[Run], baseline: Sequence[Run] = (), policy: Policy = NO_LIMITS) -> Verdict:
    """What the gate says of them."""
    return judge(current, before(*baseline), policy, DAY)


def result(found: Verdict, rule: str) -> Result:
    """What one rule says."""
    (one,) = [one for one in found.results if one.rule == rule]
    return one
