"""The truth bench: ``python -m tests.zoo.stalls [--version 3.11] [--loop uvloop] [--kind flock] [--each 20]``.

For every CPython found here, and for asyncio and uvloop, one program with stalls of known kind, length and line (the
folder ``program``) runs under ``stallscope run``; the findings are held against the truth that the program wrote (see
``judge``). Then a program that never stalls, in which none may be found unless its thread was kept from running, and
the ledger has to say so. With ``--json`` every verdict goes to stdout, and the tables to stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stallscope.analysis.findings import StallFindings
from tests.interpreters import VERSIONS, find, name_of
from tests.zoo import observe
from tests.zoo.judge import ASPECTS, Verdict, judge, unmatched
from tests.zoo.observe import CannotRun, ProgramFailed, Subject
from tests.zoo.program.kinds import KINDS

LOOPS = ("asyncio", "uvloop")
_BAR = 0.99
_NOT_RUNNING = ("descheduled", "suspended")


@dataclass(frozen=True)
class Bench:
    """The verdicts on one interpreter and one kind of loop, and the stalls that nobody made."""

    python: str
    loop: str
    runtime: str
    verdicts: list[Verdict]
    set_aside: dict[str, int]
    """By kind: stalls that were too short, or to a quarter or more something else (waits for a CPU, mostly)."""
    impossible: dict[str, list[str]]
    invented: list[dict[str, float]]
    clean: list[dict[str, float]]
    """Ledgers, in ms, of what was found in the clean program."""
    clean_iterations: int


def main() -> None:
    """Prints a table for each interpreter and loop; exit code 1 below the bar."""
    options = _options()
    out = sys.stderr if options.json else sys.stdout
    benches, failed = [], False
    with tempfile.TemporaryDirectory() as temporary:
        for subject in _subjects(options):
            try:
                benches.append(bench(subject, Path(options.keep or temporary), options))
            except (CannotRun, ProgramFailed) as reason:
                failed = failed or isinstance(reason, ProgramFailed)
                print(f"\n{subject.python}, {subject.loop}: {reason}", file=out, flush=True)
                continue
            print("\n".join(table(benches[-1])), file=out, flush=True)
    if options.each:
        print("\n".join(_summary(benches)), file=out, flush=True)
    if options.json:
        print(json.dumps([asdict(one) for one in benches], indent=1))
    if failed or any(_is_below_the_bar(one, options.each) for one in benches):
        sys.exit(1)


def _is_below_the_bar(result: Bench, each: int) -> bool:
    return bool(_blamed(result.clean)) or (each > 0 and min(_shares(result.verdicts).values()) < _BAR)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.stalls", description=__doc__)
    parser.add_argument("--python", action="append", help="an interpreter (default: every CPython found here)")
    parser.add_argument("--version", action="append", help="only that version of those found here")
    parser.add_argument("--loop", action="append", choices=LOOPS, help="only that kind (default: both)")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only that kind of stall (default: all)")
    parser.add_argument("--each", type=int, default=20, help="stalls of each kind; 0: the clean program alone")
    parser.add_argument("--seed", type=int, default=7, help="of their order")
    parser.add_argument("--iterations", type=int, default=1_000_000, help="of the clean program; 0: none")
    parser.add_argument("--no-pulse", action="store_true", help="by the agent alone")
    parser.add_argument("--keep", help="a directory for the recordings (default: they are thrown away)")
    parser.add_argument("--json", action="store_true", help="every verdict; the tables go to stderr then")
    return parser.parse_args()


def _subjects(options: argparse.Namespace) -> Iterator[Subject]:
    wanted = [version for version in VERSIONS if not options.version or name_of(version) in options.version]
    pythons = options.python or [found.executable for version in wanted if (found := find(version))]
    return (Subject(python, loop, not options.no_pulse) for python in pythons for loop in options.loop or LOOPS)


def bench(subject: Subject, keep: Path, options: argparse.Namespace) -> Bench:
    """Runs both programs; the recordings stay in ``keep``. Raises CannotRun, ProgramFailed."""
    seen = observe.stalls(subject, keep / f"{subject.name}.stall", options.kind or (), options.each, options.seed)
    clean = None
    if options.iterations:
        clean = observe.clean(subject, keep / f"{subject.name}-clean.stall", options.iterations)
    aside = [truth.kind for truth in seen.truths if not truth.is_sure]
    return Bench(
        subject.python,
        subject.loop,
        next((process.runtime for process in seen.findings.recording.processes), ""),
        judge(seen.truths, seen.findings),
        {kind: aside.count(kind) for kind in dict.fromkeys(aside)},
        seen.impossible,
        _ledgers(unmatched(seen.truths, seen.findings)),
        _ledgers(clean.stalls if clean else ()),
        sum(loop.iterations for loop in clean.loops) if clean else 0,
    )


def _ledgers(stalls: Iterable[StallFindings]) -> list[dict[str, float]]:
    return [{str(cause): ns / 1e6 for cause, ns in found.ledger.items()} for found in stalls]


def _shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    return {name: sum(getattr(one, name) for one in verdicts) / max(1, len(verdicts)) for name in ASPECTS}


def table(result: Bench) -> list[str]:
    """A row for each kind, the totals against the bar, whatever was wrong, and what was invented."""
    lines = ["", f"{result.runtime}, {result.loop}: {result.python}"]
    lines += _judged(result) if result.verdicts or result.impossible else []
    if result.clean_iterations:
        lines.append(f"invented in {result.clean_iterations:,} clean iterations: {_invented(result.clean)}")
    return lines


def _judged(result: Bench) -> list[str]:
    lines = [_row("kind", *ASPECTS, "unexplained", "ms")]
    for kind in sorted({one.kind for one in result.verdicts}, key=list(KINDS).index):
        lines.append(_counts(kind, [one for one in result.verdicts if one.kind == kind]))
    lines.append(_counts("all", result.verdicts))
    lines.append(_row("", *(f"{share:.1%}" for share in _shares(result.verdicts).values()), f"bar {_BAR:.0%}", ""))
    lines += [f"  wrong: {one.kind} {_wrong(one)}: {one.said}" for one in result.verdicts if not one.right]
    lines += [f"impossible here: {', '.join(kinds)}: {reason}" for reason, kinds in result.impossible.items()]
    aside = ", ".join(f"{count} of {kind}" for kind, count in result.set_aside.items())
    lines.append(f"set aside, too short or for a quarter and more a wait for a CPU: {aside or 'none'}")
    return [*lines, f"invented beside them: {_invented(result.invented)}"]


def _wrong(one: Verdict) -> str:
    return ", ".join(aspect for aspect in ASPECTS if not getattr(one, aspect))


def _summary(benches: Sequence[Bench]) -> list[str]:
    lines = ["", _row("", *ASPECTS, "unexplained", "ms")]
    lines += [_counts(f"{one.runtime} {one.loop}", one.verdicts) for one in benches]
    for kind in KINDS:
        verdicts = [verdict for one in benches for verdict in one.verdicts if verdict.kind == kind]
        lines += [_counts(kind, verdicts)] if verdicts else []
    return [*lines, _counts("all", [verdict for one in benches for verdict in one.verdicts])]


def _counts(name: str, verdicts: Sequence[Verdict]) -> str:
    sums = [f"{sum(getattr(one, aspect) for one in verdicts)}/{len(verdicts)}" for aspect in ASPECTS]
    unexplained = statistics.median(one.unexplained for one in verdicts) if verdicts else 0.0
    length = statistics.median(one.truth_ms for one in verdicts) if verdicts else 0.0
    return _row(name, *sums, f"{unexplained:.2%}", f"{length:.1f}")


def _row(name: str, *cells: str) -> str:
    return f"{name:23}" + "".join(f"{cell:>10}" for cell in cells[:-2]) + "".join(f"{cell:>12}" for cell in cells[-2:])


def _invented(ledgers: Sequence[dict[str, float]]) -> str:
    others = _blamed(ledgers)
    shown = [str({cause: round(ms, 1) for cause, ms in one.items()}) for one in others]
    held = len(ledgers) - len(others)
    return "; ".join([f"{len(others)}, and {held} while its thread was kept from running", *shown])


def _blamed(ledgers: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Those of which the most was not that the thread was kept from running."""
    return [one for one in ledgers if max(one, key=lambda cause: one[cause]) not in _NOT_RUNNING]


if __name__ == "__main__":
    main()
