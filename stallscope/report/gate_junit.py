"""The gate's verdict as JUnit XML: a test case for each rule, and one for each new culprit."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from stallscope.gate.verdict import Verdict
from stallscope.report.gate_words import figures, headline, message, new, place, stack_lines

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(verdict: Verdict) -> str:
    """The verdict as XML text.  A warning passes; what was skipped or inconclusive is skipped."""
    suites = Element("testsuites")
    suite = SubElement(suites, "testsuite", name="stallscope gate")
    for result in verdict.results:
        if result.rule == "new culprits" and verdict.new.culprits:
            continue
        case = SubElement(suite, "testcase", classname="stallscope.gate", name=_xml(result.rule))
        if result.outcome == "fail":
            SubElement(case, "failure", message=_xml(figures(result)), type="stallscope")
        elif result.outcome in ("skipped", "inconclusive"):
            SubElement(case, "skipped", message=_xml(figures(result)))
        else:
            SubElement(case, "system-out").text = _xml(f"{result.outcome}: {figures(result)}")
    for one in verdict.new.culprits:
        name = f"no {new(one.site)} at {place(one.site)}"
        case = SubElement(
            suite, "testcase", classname="stallscope.gate", name=_xml(name), file=_xml(one.site.place.file)
        )
        case.set("line", str(one.site.line))
        failure = SubElement(case, "failure", message=_xml(message(one)), type="stallscope")
        failure.text = _xml("\n".join(stack_lines(one.site)))
    SubElement(suite, "system-out").text = _xml(headline(verdict))
    for kind in ("failure", "skipped"):
        suite.set({"failure": "failures", "skipped": "skipped"}[kind], str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("errors", "0")
    indent(suites)
    return tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold, escaped or not."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
