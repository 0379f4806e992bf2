"""``pytest --stallscope``: every test's event loop is measured, and a test that blocks it fails.

Nothing of ours is imported unless it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stallscope.testing.suite import Suite, Worker

MARKER = (
    'stallscope(max_stall="50ms", blocking="error", allow=["FILE:FUNCTION:CALL"]): what this test may do to its event'
    " loop, under --stallscope"
)
_SUITE = "stallscope-suite"


class _Unrewritten:
    """Finds our own modules before pytest does.

    Pytest rewrites the assertions of every module of a distribution that brings a plugin: to parse and compile sixty
    of them anew took most of what the plugin cost a short session, and our modules have no assertion.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith("stallscope.") else None


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, and the settings of the ini file behind them."""
    group = parser.getgroup("stallscope", "what blocks event loops (stallscope)")
    group.addoption("--stallscope", action="store_true", help="measure every test's event loop, fail those that block")
    group.addoption(
        "--stallscope-blocking",
        choices=("off", "record", "error"),
        help="blocking calls, however fast: not looked for, kept in the recording (default), or failing the test",
    )
    group.addoption("--stallscope-max-stall", metavar="TIME", help="longest stall of a test (100ms; off: no limit)")
    group.addoption("--stallscope-output", metavar="FILE", help="the recording of the session (pytest.stall)")
    parser.addini("stallscope_blocking", "see --stallscope-blocking", default="record")
    parser.addini("stallscope_max_stall", "see --stallscope-max-stall", default="100ms")
    parser.addini("stallscope_output", "see --stallscope-output", default="pytest.stall")
    parser.addini("stallscope_threshold", "from which duration on an iteration is a stall", default="10ms")
    parser.addini("stallscope_allow", "call sites that may block: FILE[:FUNCTION[:CALL[:KIND]]]", "linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Come aboard, if asked to."""
    config.addinivalue_line("markers", MARKER)
    if not config.getoption("--stallscope") or config.getoption("--collect-only"):
        return
    sys.meta_path.insert(0, _Unrewritten)
    config.add_cleanup(lambda: sys.meta_path.remove(_Unrewritten))
    from stallscope.testing.suite import made_for

    config.pluginmanager.register(Plugin(config, made_for(config)), _SUITE)


class Plugin:
    """The hooks of a session that is measured: of the tests' own process, or of the one that hands them out."""

    def __init__(self, config: pytest.Config, suite: Suite) -> None:
        self._config = config
        self._suite = suite
        self._worker: Worker | None = None

    def pytest_sessionstart(self) -> None:
        """Begin to measure; a process that only hands tests out measures nothing."""
        if not self._suite.hands_out:
            self._worker = self._suite.worker()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Of pytest-xdist: tell a worker where its part of the recording goes."""
        node.workerinput["stallscope_parts"] = str(self._suite.parts)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read every marker now: one that is wrong must not pass unseen."""
        for item in items:
            self._suite.budget_of(item)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self) -> None:
        """What happened between tests is nobody's."""
        if self._worker is not None:
            self._worker.forget()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """Each phase of a test is judged as it ends."""
        outcome: Any = yield
        if self._worker is not None:
            self._worker.judge(item, outcome.get_result())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what each test's loop did, wherever the test ran."""
        self._suite.remember(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Leave, and complete the recording."""
        if self._worker is not None:
            self._worker.finish()
        self._suite.gather()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """What was seen, and what to do with it."""
        lines = self._suite.summary()
        if lines:
            terminalreporter.section("stallscope")
            for line in lines:
                terminalreporter.write_line(line)
