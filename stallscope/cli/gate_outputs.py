"""Where a verdict goes besides the terminal: files for CI, and the annotations of the forge that runs it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from stallscope.cli.output import say
from stallscope.cli.write import write_text
from stallscope.errors import UnreadableInput
from stallscope.gate.verdict import Verdict

CODE_QUALITY = "gl-code-quality-report.json"
"""The name that GitLab's documentation gives to the artifact."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files that were asked for."""

    junit: Path | None = None
    sarif: Path | None = None
    markdown: Path | None = None

    def write(self, verdict: Verdict) -> None:
        """Write them, and annotate where CI says who it is.  Raises UnreadableInput where a file cannot be written."""
        from stallscope.report import gate_annotations, gate_junit, gate_markdown, gate_sarif

        if self.junit:
            write_text(self.junit, gate_junit.render(verdict))
        if self.sarif:
            write_text(self.sarif, gate_sarif.render(verdict))
        if self.markdown:
            _write_summary(self.markdown, gate_markdown.render(verdict))
        if os.environ.get("GITHUB_ACTIONS") == "true":
            # The runner reads both streams; stdout may be JSON.
            print(*gate_annotations.github(verdict), sep="\n", file=sys.stderr, flush=True)
        if os.environ.get("GITLAB_CI") == "true":
            path = Path(os.environ.get("CI_PROJECT_DIR", "."), CODE_QUALITY)
            write_text(path, gate_annotations.gitlab(verdict))
            say(f"wrote {path}, for artifacts:reports:codequality")


def _write_summary(path: Path, text: str) -> None:
    """A job's summary is one file for all steps: add to it."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary is None or Path(summary).absolute() != path.absolute():
        write_text(path, text)
        return
    try:
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise UnreadableInput(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
