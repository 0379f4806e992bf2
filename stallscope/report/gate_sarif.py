"""The gate's verdict as SARIF 2.1.0, as GitHub's code scanning takes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import quote

from stallscope import __version__
from stallscope.gate.verdict import NewCulprit, Result, Verdict
from stallscope.report.gate_words import BLOCKS, COMPUTES, figures, kind, message
from stallscope.report.json_values import Json

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
WORSE = "slower-loop"
_RULES: tuple[Json, ...] = (
    {
        "id": BLOCKS,
        "name": "NewBlockingCall",
        "shortDescription": {"text": "A call that blocks the event loop, new since the baseline"},
        "fullDescription": {
            "text": "A call on the event loop's thread stops every connection of that worker for as long as it takes."
            " It is reported even where it was fast: the same call is slow in production."
        },
        "help": {"text": "Move the call to a thread, or use the asynchronous way that the advice names."},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["performance", "asyncio"], "problem.severity": "error"},
    },
    {
        "id": WORSE,
        "name": "SlowerLoop",
        "shortDescription": {"text": "A budget of the event loop is exceeded, or its stalls came more often"},
        "help": {"text": "stallscope analyze RECORDING names the lines to blame."},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["performance", "asyncio"], "problem.severity": "warning"},
    },
    {
        "id": COMPUTES,
        "name": "NewLongComputation",
        "shortDescription": {"text": "Code that stalls the event loop by computing, new since the baseline"},
        "fullDescription": {
            "text": "Code that computes on the event loop's thread stops every connection of that worker meanwhile."
        },
        "help": {"text": "Move it to another process, or let it give the loop a turn now and then."},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["performance", "asyncio"], "problem.severity": "error"},
    },
)
_INDEX = {str(rule["id"]): index for index, rule in enumerate(_RULES)}


def render(verdict: Verdict) -> str:
    """The verdict as SARIF text."""
    driver = {
        "name": "stallscope",
        "semanticVersion": __version__,
        "version": __version__,
        "rules": list(_RULES),
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "automationDetails": {"id": "stallscope/gate/"},
        "results": list(_results(verdict)),
    }
    log = {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _results(verdict: Verdict) -> Iterator[Json]:
    yield from (_culprit(one) for one in verdict.new.culprits)
    for result in verdict.results:
        if result.outcome in ("fail", "warn") and result.rule != "new culprits":
            yield _worse(result)


def _culprit(one: NewCulprit) -> Json:
    site = one.site
    # As the baseline knows it, without its line: so an alert stays the same one when the file is edited.
    identity = sha256("\0".join(site.place).encode("utf-8", "replace")).hexdigest()
    return {
        "ruleId": kind(site),
        "ruleIndex": _INDEX[kind(site)],
        "level": "error",
        "message": {"text": _text(message(one))},
        "locations": [_location(site.place.file, site.line)],
        "partialFingerprints": {"stallscopeSite/v1": identity},
        "codeFlows": [_flow(one)] if len(site.stack) > 1 else [],
    }


def _worse(result: Result) -> Json:
    # Code scanning wants a place for every result; the settings are where a budget is.
    return {
        "ruleId": WORSE,
        "ruleIndex": _INDEX[WORSE],
        "level": "error" if result.outcome == "fail" else "warning",
        "message": {"text": _text(f"{result.rule}: {figures(result)}")},
        "locations": [_location("pyproject.toml", 1)],
        "partialFingerprints": {"stallscopeRule/v1": sha256(result.rule.encode()).hexdigest()},
    }


def _flow(one: NewCulprit) -> Json:
    """The stack, outermost first, as a path to follow."""
    steps = [
        {"location": {**_location(frame.file, frame.line), "message": {"text": _text(frame.function or "?")}}}
        for frame in reversed(one.site.stack)
    ]
    return {"threadFlows": [{"locations": steps}]}


def _location(file: str, line: int) -> Json:
    uri = quote(file if not file.startswith("/") else f"file://{file}", safe="/:", errors="surrogateescape")
    physical: Json = {"artifactLocation": {"uri": uri or "unknown"}}
    if line:
        physical["region"] = {"startLine": line}
    return {"physicalLocation": physical}


def _text(text: str) -> str:
    """Names that are not UTF-8 arrive as lone surrogates, which no JSON reader takes."""
    return text.encode("utf-8", "backslashreplace").decode()
