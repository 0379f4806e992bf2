"""A test session that is measured: its settings, its workers, its one recording."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from stallscope.errors import StallscopeError
from stallscope.gate.policy import Allowance
from stallscope.recording.nouns import CallSite, Missing
from stallscope.testing.aboard import Aboard, Details
from stallscope.testing.audit import UNSEEN, WHY_UNSEEN, Audit
from stallscope.testing.budget import Budget

if TYPE_CHECKING:
    from stallscope.gate.sites import Relative
    from stallscope.testing.judging import Failure

SHOWN = 5
_MARKED = ("max_stall", "blocking", "allow")
_BLOCKING = ("off", "record", "error")
_KEY = "stallscope"

Duration = Callable[[str, str], "int"]

NO_DETAILS = "no details came, so whether the test or a loaded machine made them long is not known"


class Told(NamedTuple):
    """What a phase of a test did to its loop, as its report carries it."""

    longest_ns: int = 0
    """The longest iteration; 0 where none lasted a millisecond."""
    stalls: int = 0
    unjudged: int = 0
    """Over the budget, and known by their length alone: neither failed nor passed."""


class Settings(NamedTuple):
    """What the session was asked for."""

    output: Path
    threshold_ns: int
    max_stall_ns: int | None
    blocking: str
    allowances: tuple[Allowance, ...]
    relative: Relative
    duration_ns: Duration


@dataclass(slots=True)
class Suite:
    """The session, in the process that reports it; and in a worker of pytest-xdist, its share of it."""

    settings: Settings
    parts: Path
    """A directory for the recordings of the workers."""
    hands_out: bool
    """Whether the tests run elsewhere."""
    part: Path
    """Where this process records."""
    tests: dict[str, Told] = field(default_factory=dict)
    said: str = ""

    def worker(self) -> Worker:
        """Begin to measure this process."""
        return Worker(self)

    def budget_of(self, item: pytest.Item) -> Budget:
        """The budget of a test: the nearest marker has the last word, and all of them may allow.

        Raises pytest.UsageError for a marker that says what there is not.
        """
        max_stall_ns, blocking = self.settings.max_stall_ns, self.settings.blocking
        allowances = list(self.settings.allowances)
        for marker in reversed(list(item.iter_markers(_KEY))):
            _require_known(item, marker)
            if "max_stall" in marker.kwargs:
                max_stall_ns = self._limit(item, str(marker.kwargs["max_stall"]))
            blocking = marker.kwargs.get("blocking", blocking)
            allowances += [Allowance(pattern, "of the test's marker") for pattern in marker.kwargs.get("allow", ())]
        return Budget(max_stall_ns, blocking == "error", tuple(allowances))

    def _limit(self, item: pytest.Item, text: str) -> int | None:
        try:
            limit_ns = None if text == "off" else self.settings.duration_ns(text, "max_stall")
        except StallscopeError as error:
            raise pytest.UsageError(f"{item.nodeid}: {error}") from None
        if limit_ns is not None and limit_ns < self.settings.threshold_ns:
            threshold = f"{self.settings.threshold_ns / 1e6:g} ms"
            raise pytest.UsageError(
                f"{item.nodeid}: max_stall {text!r} is under the threshold ({threshold}), from which on iterations are"
                " looked at: lower stallscope_threshold in the ini file as well"
            )
        return limit_ns

    def remember(self, report: pytest.TestReport) -> None:
        """What a phase of a test did to its loop, as its report brings it."""
        told = getattr(report, _KEY, (0,))
        if told[0]:
            now = Told(*told)
            before = self.tests.get(report.nodeid, Told())
            longest_ns, stalls = max(before.longest_ns, now.longest_ns), before.stalls + now.stalls
            self.tests[report.nodeid] = Told(longest_ns, stalls, before.unjudged + now.unjudged)

    def gather(self) -> None:
        """Make one recording of the parts; the workers are over."""
        if not self.hands_out:
            return
        parts = sorted(self.parts.glob("*.stall"))
        try:
            if parts:
                _merge(parts, self.settings)
                self.said = f"recorded in {self.settings.output}"
        except StallscopeError as error:
            self.said = f"the workers' recordings could not be made one: {error}"
        finally:
            shutil.rmtree(self.parts, ignore_errors=True)

    def summary(self) -> list[str]:
        """What was seen, and the tests with the slowest loops."""
        slowest = sorted(self.tests.items(), key=lambda one: -one[1].longest_ns)
        lines = [f"{_ms(one.longest_ns):>10}  {_stalls(one.stalls)}  {test}" for test, one in slowest[:SHOWN]]
        if lines:
            lines.insert(0, "longest iterations of an event loop:")
        unjudged = [(test, one) for test, one in slowest if one.unjudged]
        if unjudged:
            lines.append(f"over the budget, but not judged ({NO_DETAILS}):")
            lines += [f"{_ms(one.longest_ns):>10}  {_stalls(one.unjudged)}  {test}" for test, one in unjudged]
        if self.said:
            lines.append(f"{self.said}; next: stallscope gate {self.settings.output}")
        return lines


class Worker:
    """Measures the tests of this process."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._settings = suite.settings
        self._audit = Audit()
        try:
            self._aboard = Aboard(suite.part, self._settings.threshold_ns, "pytest")
            self._aboard.start()
        except StallscopeError as error:
            raise pytest.UsageError(f"--stallscope: {error}") from None
        if self._settings.blocking != "off":
            self._audit.start(self._aboard.listen)

    def forget(self) -> None:
        """What happened so far is not the next test's."""
        if self._aboard.is_here:
            self._aboard.look()
            self._audit.look()

    def judge(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Look at what a phase of a test did, and fail it if that is more than it may."""
        if not self._aboard.is_here:  # pytest-forked runs each test in a child
            return
        seen = self._aboard.look()
        heard = self._audit.look()
        setattr(report, _KEY, (seen.longest_ns, seen.stalls))  # a plain tuple: xdist carries no other
        if not seen.stalls and not heard:
            return
        budget = self._suite.budget_of(item)
        limit_ns = budget.max_stall_ns
        long = Details()
        if limit_ns is not None and seen.at_most_ns > limit_ns:
            long = self._aboard.details(seen, limit_ns)
        if long.lacking:
            setattr(report, _KEY, (seen.longest_ns, seen.stalls, long.lacking))
            report.sections.append(("stallscope", f"{_stalls(long.lacking).strip()} over the budget: {NO_DETAILS}"))
        if not long.stalls and not (heard and budget.forbids_blocking):
            return
        sites = [CallSite(1, None, one.call, one.stack, one.hits, 0, 0) for one in heard]
        ours = [site for site in sites if not _is_tests_own(site, item)]
        settings = self._settings
        from stallscope.testing.judging import judged  # the whole analysis: only where there is something to judge

        failure = judged(long.stalls, ours, budget, settings.threshold_ns, settings.relative, date.today())
        if failure is not None:
            _fail(report, failure, budget)

    def finish(self) -> None:
        """Leave the process."""
        if not self._aboard.is_here:
            return
        self._audit.stop()
        sites = self._audit.call_sites(self._aboard.process_id)
        heard = self._audit.counted() if self._settings.blocking != "off" else ()
        self._aboard.keep_sites(sites, heard, [Missing(UNSEEN, WHY_UNSEEN)])
        collector = self._aboard.finish()
        if collector.stopped:
            self._suite.said = collector.stopped
        elif not self._suite.hands_out:
            counted = f"{collector.counted}{collector.foreign_loops}"
            self._suite.said = f"{counted}, recorded in {self._settings.output}"


def _fail(report: pytest.TestReport, failure: Failure, budget: Budget) -> None:
    from stallscope.report.failed_test import render

    width = shutil.get_terminal_size((80, 24)).columns
    text = render(failure.findings, failure.stall_ns, budget.max_stall_ns, failure.blocking, width).rstrip()
    if report.passed and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = text
    else:
        report.sections.append(("stallscope", text))


def _is_tests_own(site: CallSite, item: pytest.Item) -> bool:
    """Whether the test itself made the call, or its conftest: it may prepare what it tests."""
    from stallscope.analysis.sites import location

    where = location(site.stack)
    return where is not None and (where.file == str(item.path) or where.file.endswith("/conftest.py"))


def _require_known(item: pytest.Item, marker: pytest.Mark) -> None:
    unknown = sorted(set(marker.kwargs) - set(_MARKED))
    if marker.args or unknown:
        what = repr(unknown[0]) if unknown else "an argument without a name"
        raise pytest.UsageError(
            f"{item.nodeid}: the marker stallscope has {what}; it takes {', '.join(_MARKED)}, each by name"
        )
    if marker.kwargs.get("blocking", "off") not in _BLOCKING:
        raise pytest.UsageError(f"{item.nodeid}: blocking is one of {', '.join(_BLOCKING)}")
    if isinstance(marker.kwargs.get("allow", ()), str):
        raise pytest.UsageError(f"{item.nodeid}: allow is a list of patterns, not one text")


def _merge(parts: Iterable[Path], settings: Settings) -> None:
    from stallscope.recording.merge import merged
    from stallscope.recording.reader import read
    from stallscope.recording.store import save

    save(merged([read(part) for part in parts]), settings.output, force=True, command="pytest")


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3g} ms"


def _stalls(number: int) -> str:
    return f"{number:>3} stalls" if number != 1 else "  1 stall "


def made_for(config: pytest.Config) -> Suite:
    """The session of a configuration.  Raises pytest.UsageError for a setting that is wrong."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    settings = _settings(config)
    if "stallscope_parts" in given:
        parts = Path(given["stallscope_parts"])
        return Suite(settings, parts, False, parts / f"{given['workerid']}.stall")
    hands_out = bool(getattr(config.option, "dist", "no") != "no" and getattr(config.option, "tx", None))
    parts = Path(tempfile.mkdtemp(prefix="stallscope-")) if hands_out else settings.output.parent
    return Suite(settings, parts, hands_out, settings.output)


def _settings(config: pytest.Config) -> Settings:
    from stallscope.cli.project import relative_to
    from stallscope.cli.units import parse_duration_ns

    def asked(name: str) -> str:
        return str(config.getoption(f"--stallscope-{name}") or config.getini(f"stallscope_{name.replace('-', '_')}"))

    blocking, limit = asked("blocking"), asked("max-stall")
    if blocking not in _BLOCKING:
        raise pytest.UsageError(f"stallscope_blocking is {blocking!r}, not one of {', '.join(_BLOCKING)}")
    try:
        threshold_ns = parse_duration_ns(str(config.getini("stallscope_threshold")), "stallscope_threshold")
        max_stall_ns = None if limit == "off" else parse_duration_ns(limit, "--stallscope-max-stall")
    except StallscopeError as error:
        raise pytest.UsageError(str(error)) from None
    allowed = [Allowance(str(pattern), "of the ini file") for pattern in config.getini("stallscope_allow")]
    output = Path(asked("output")).absolute()
    relative = relative_to(config.rootpath)
    return Settings(output, threshold_ns, max_stall_ns, blocking, tuple(allowed), relative, parse_duration_ns)
