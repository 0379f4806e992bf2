"""The two sides of a gate: recordings and baseline files, read and corrected by one threshold."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stallscope.cli.inputs import read_input
from stallscope.cli.project import Project, relative_to
from stallscope.errors import UnreadableInput
from stallscope.gate.baseline import MARK, Baseline, parse
from stallscope.gate.judge import Before
from stallscope.gate.policy import Allowance
from stallscope.gate.runs import Run, run_of
from stallscope.recording.nouns import Recording


@dataclass(frozen=True, slots=True)
class Sides:
    """What is judged, what it is compared with, and what the baseline files accept."""

    runs: tuple[Run, ...]
    before: Before
    allowances: tuple[Allowance, ...]


def read_sides(project: Project, current: Sequence[Path], baseline: Sequence[Path]) -> Sides:
    """Both sides, by the highest of their thresholds.

    Raises UnreadableInput for what is neither recording nor baseline, and for a recording that is on both sides.
    """
    recordings = [_recording(path) for path in current]
    files = [_baseline(path, project) for path in baseline if is_baseline(path)]
    earlier = [_recording(path) for path in baseline if not is_baseline(path)]
    thresholds = [one.threshold_ns for one in (*recordings, *earlier)]
    thresholds += [run.facts.threshold_ns for file in files for run in file.runs]
    threshold_ns, relative = max(thresholds), relative_to(project.root)
    runs = tuple(run_of(one, threshold_ns, relative) for one in recordings)
    before = tuple(run_of(one, threshold_ns, relative) for one in earlier)
    _require_different(runs, before)
    return Sides(runs, _before(before, files), tuple(one for file in files for one in file.allowances))


def is_baseline(path: Path) -> bool:
    """Whether a file is (or by its name should be) a baseline and not a recording or a trace."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return path.suffix in (".jsonl", ".json")
    return f'"{MARK}"'.encode() in head or path.suffix == ".jsonl"


def read_baseline(path: Path, project: Project) -> Baseline:
    """A baseline file that must be there."""
    return _baseline(path, project)


def machine() -> str:
    """What a baseline notes of the machine that a run was accepted on."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count() or '?'} CPUs"


def _recording(path: Path) -> Recording:
    if is_baseline(path):
        raise UnreadableInput(f"{path} is a baseline, not a recording: give it with --baseline")
    return read_input(path)


def _baseline(path: Path, project: Project) -> Baseline:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UnreadableInput(f"{path} is not a baseline: it is no text") from None
    except OSError as error:
        raise UnreadableInput(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    return parse(text, str(path), project.name)


def _before(runs: Sequence[Run], files: Iterable[Baseline]) -> Before:
    accepted = [one for file in files for one in file.runs]
    places = {place for run in runs for place in run.sites} | {place for file in files for place in file.sites}
    facts = (*(run.facts for run in runs), *(one.facts for one in accepted))
    return Before(facts, frozenset(places), frozenset(one.machine for one in accepted))


def _require_different(runs: Sequence[Run], before: Sequence[Run]) -> None:
    seen: dict[str, str] = {}
    for run, side in [*((run, "current") for run in runs), *((run, "baseline") for run in before)]:
        if run.facts.id in seen:
            where = "on both sides" if seen[run.facts.id] != side else "given twice"
            raise UnreadableInput(
                f"{run.path} is {where}: a recording can only be compared with others; give one from before the change"
                " with --baseline"
            )
        seen[run.facts.id] = side
