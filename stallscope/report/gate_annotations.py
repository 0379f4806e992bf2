"""The gate's verdict where a forge shows it beside the code: GitHub's workflow commands, GitLab's Code Quality.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions (its escapes: the runner's own
``toolkit/packages/core/src/command.ts``); https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256

from stallscope.gate.verdict import Verdict
from stallscope.report.gate_words import figures, kind, message
from stallscope.report.json_values import Json

_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def github(verdict: Verdict) -> Iterator[str]:
    """A workflow command for each new culprit, and for each rule that failed or warned."""
    for one in verdict.new.culprits:
        title = f"stallscope: {'new long computation' if one.site.computes else 'new blocking call'}"
        where = {"file": one.site.place.file, "line": str(one.site.line or 1), "title": title}
        yield _command("error", where, message(one))
    for result in verdict.results:
        if result.outcome in ("fail", "warn") and result.rule != "new culprits":
            level = "error" if result.outcome == "fail" else "warning"
            yield _command(level, {"title": f"stallscope: {result.rule}"}, figures(result))


def gitlab(verdict: Verdict) -> str:
    """A Code Quality report, as JSON text."""
    issues = [
        _issue(message(one), kind(one.site), one.site.place, one.site.place.file, one.site.line or 1, "major")
        for one in verdict.new.culprits
    ]
    issues += [
        _issue(f"{one.rule}: {figures(one)}", "slower-loop", (one.rule,), "pyproject.toml", 1, "minor")
        for one in verdict.results
        if one.outcome in ("fail", "warn") and one.rule != "new culprits"
    ]
    return json.dumps(issues, indent=2, ensure_ascii=True) + "\n"


def _command(level: str, properties: dict[str, str], text: str) -> str:
    listed = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in properties.items())
    return f"::{level} {listed}::{_escaped(text, _DATA)}"


def _escaped(text: str, escapes: dict[str, str]) -> str:
    return "".join(escapes.get(letter, letter) for letter in text)


def _issue(text: str, check: str, identity: tuple[str, ...], file: str, line: int, severity: str) -> Json:
    return {
        "description": text,
        "check_name": f"stallscope/{check}",
        "fingerprint": sha256("\0".join((check, *identity)).encode("utf-8", "replace")).hexdigest(),
        "severity": severity,
        "location": {"path": file, "lines": {"begin": line}},
    }
