"""The truth bench: ``python -m tests.zoo.stalls [--python PATH ...] [--each 20] [--iterations 1000000] [--json]``.

For every CPython found here one program with stalls of known kind, length and line (``stall_program.py``) runs under
``stallscope run``; the findings are held against the truth that the program wrote. Then a program that never stalls,
in which none may be found unless its thread was kept from running, and the ledger has to say so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Findings, StallFindings
from stallscope.recording.reader import read
from tests.interpreters import VERSIONS, find

_PROGRAM = str(Path(__file__).with_name("stall_program.py"))
_SURE_NS = 20_000_000  # twice the threshold: shorter "stalls" (a disk too fast for fsync) are not judged
_CLOSE_NS = 1_000_000
_BAR = 0.95
_COLUMNS = ("found", "close", "cause", "call", "line")
_NOT_RUNNING = ("descheduled", "suspended")


@dataclass(frozen=True)
class Truth:
    """One stall as the program saw it: ``start_ns`` to ``end_ns`` what blocked, ``entered_ns`` to ``left_ns`` its
    handler; ``lines`` are the first and the last that may be named, ``calls`` are empty where none may be."""

    kind: str
    cause: str
    calls: list[str]
    file: str
    lines: list[int]
    start_ns: int
    end_ns: int
    cpu_ns: int
    run_delay_ns: int
    entered_ns: int
    left_ns: int

    @property
    def lasting_ns(self) -> int:
        """How long its own cause stalled the loop: code that computes does so only while it runs."""
        if self.cause in ("python-cpu", "gc"):
            return self.cpu_ns
        return self.end_ns - self.start_ns - self.run_delay_ns

    @property
    def is_sure(self) -> bool:
        """Whether it has to be found, and to be called what it was meant to be."""
        return self.lasting_ns >= max(_SURE_NS, (self.end_ns - self.start_ns) * 3 // 4)


@dataclass(frozen=True)
class Verdict:
    """What was right of what was found for one stall; ``said`` is what was found, in words."""

    kind: str
    found: bool
    close: bool = False
    cause: bool = False
    call: bool = False
    line: bool = False
    unexplained: float = 1.0
    truth_ms: float = 0.0
    said: str = "nothing"

    @property
    def right(self) -> bool:
        """All of it."""
        return self.found and self.close and self.cause and self.call and self.line


@dataclass(frozen=True)
class Bench:
    """The verdicts on one interpreter, and the stalls that nobody made."""

    python: str
    verdicts: list[Verdict]
    not_judged: int
    """Stalls that were too short, or mostly a wait for a CPU."""
    invented: list[dict[str, float]]
    clean: list[dict[str, float]]
    """Ledgers, in ms, of what was found in the clean program."""


def main() -> None:
    """Prints a table for each interpreter; exit code 1 below the bar."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        keep = Path(options.keep or temporary)
        benches = [bench(python, keep, options) for python in options.python or _interpreters()]
    if options.json:
        print(json.dumps([asdict(one) for one in benches], indent=1))
    if any(share < _BAR for one in benches for share in _shares(one.verdicts).values()):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.stalls", description=__doc__)
    parser.add_argument("--python", action="append", help="an interpreter (default: every CPython found here)")
    parser.add_argument("--each", type=int, default=20, help="stalls of each kind")
    parser.add_argument("--seed", type=int, default=7, help="of their order")
    parser.add_argument("--iterations", type=int, default=1_000_000, help="of the clean program; 0: none")
    parser.add_argument("--keep", help="a directory for the recordings (default: they are thrown away)")
    parser.add_argument("--json", action="store_true", help="every verdict; the tables go to stderr then")
    return parser.parse_args()


def _interpreters() -> list[str]:
    return [found.executable for version in VERSIONS if (found := find(version))]


def bench(python: str, keep: Path, options: argparse.Namespace) -> Bench:
    """Runs both programs under one interpreter, and prints what came out; the recordings stay in ``keep``."""
    name = python.strip("/").replace("/", "-")
    truths, findings = observe(python, keep / f"{name}.stall", options.each, options.seed)
    clean = observe_clean(python, keep / f"{name}-clean.stall", options.iterations) if options.iterations else None
    verdicts = judge(truths, findings)
    invented = _ledgers(_unmatched(truths, findings))
    not_judged = len(truths) - len(verdicts)
    result = Bench(python, verdicts, not_judged, invented, _ledgers(clean.stalls if clean else ()))
    out = sys.stderr if options.json else sys.stdout
    print("\n".join(table(result, clean)), file=out, flush=True)
    return result


def observe(python: str, recording: Path, each: int, seed: int) -> tuple[list[Truth], Findings]:
    """The program's truth, and what stallscope found."""
    with tempfile.TemporaryDirectory() as directory:
        truth = Path(directory, "truth")
        findings = _findings(recording, [python, _PROGRAM, "stalls", str(truth), directory, str(each), str(seed)])
        return [Truth(**json.loads(line)) for line in truth.read_text().splitlines()], findings


def observe_clean(python: str, recording: Path, iterations: int) -> Findings:
    """What stallscope found in a program that never stalls."""
    return _findings(recording, [python, _PROGRAM, "clean", str(iterations)])


def _findings(recording: Path, command: Sequence[str]) -> Findings:
    observed = [sys.executable, "-m", "stallscope", "run", "--force", "-o", str(recording), "--", *command]
    done = subprocess.run(observed, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the observed program failed: {done.stderr}")
    return examine(read(recording))


def judge(truths: Sequence[Truth], findings: Findings) -> list[Verdict]:
    """A verdict on each truth that is sure."""
    return [_verdict(truth, _match(truth, findings), findings) for truth in truths if truth.is_sure]


def _overlap_ns(truth: Truth, found: StallFindings) -> int:
    start = found.stall.start_ns
    return min(truth.left_ns, start + found.stall.duration_ns) - max(truth.entered_ns, start)


def _match(truth: Truth, findings: Findings) -> StallFindings | None:
    best = max(findings.stalls, key=lambda found: _overlap_ns(truth, found), default=None)
    return best if best is not None and _overlap_ns(truth, best) > 0 else None


def _unmatched(truths: Sequence[Truth], findings: Findings) -> Iterator[StallFindings]:
    return (found for found in findings.stalls if all(_overlap_ns(truth, found) <= 0 for truth in truths))


def _verdict(truth: Truth, found: StallFindings | None, findings: Findings) -> Verdict:
    if found is None:
        return Verdict(truth.kind, False)
    cause = max(found.ledger, key=lambda cause: found.ledger[cause])
    culprit = findings.culprits[found.culprit - 1] if found.culprit else None
    where = culprit.location if culprit else None
    call = culprit.syscall if culprit else None
    in_ms = {cause: round(ns / 1e6, 1) for cause, ns in found.ledger.items()}
    return Verdict(
        kind=truth.kind,
        found=True,
        close=abs(found.stall.duration_ns - (truth.left_ns - truth.entered_ns)) <= _CLOSE_NS,
        cause=cause == truth.cause,
        call=culprit is not None and (call in truth.calls if truth.calls else call is None),
        line=where is not None and where.file == truth.file and truth.lines[0] <= where.line <= truth.lines[1],
        unexplained=found.ledger.get("unexplained", 0) / found.stall.duration_ns,
        truth_ms=(truth.end_ns - truth.start_ns) / 1e6,
        said=f"{found.stall.duration_ns / 1e6:.1f} ms {in_ms}, {call}, {where and (where.function, where.line)}",
    )


def _ledgers(stalls: Iterable[StallFindings]) -> list[dict[str, float]]:
    return [{str(cause): ns / 1e6 for cause, ns in found.ledger.items()} for found in stalls]


def _shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    return {name: sum(getattr(one, name) for one in verdicts) / max(1, len(verdicts)) for name in _COLUMNS}


def table(result: Bench, clean: Findings | None) -> list[str]:
    """A row for each kind, the totals against the bar, whatever was wrong, and what was invented."""
    runtime = f"{clean.recording.processes[0].runtime}: " if clean and clean.recording.processes else ""
    lines = ["", f"{runtime}{result.python}", _row("kind", *_COLUMNS, "unexplained", "ms")]
    for kind in dict.fromkeys(one.kind for one in result.verdicts):
        lines.append(_counts(kind, [one for one in result.verdicts if one.kind == kind]))
    lines.append(_counts("all", result.verdicts))
    shares = _shares(result.verdicts)
    lines.append(_row("", *(f"{share:.1%}" for share in shares.values()), f"bar {_BAR:.0%}", ""))
    lines += [f"  wrong: {one.kind} {one.truth_ms:.1f} ms: {one.said}" for one in result.verdicts if not one.right]
    if result.not_judged:
        lines.append(f"not judged: {result.not_judged}, too short or for the most part waits for a CPU")
    lines.append(f"invented beside them: {_invented(result.invented)}")
    if clean is not None:
        iterations = sum(loop.iterations for loop in clean.loops)
        lines.append(f"invented in {iterations:,} clean iterations: {_invented(result.clean)}")
    return lines


def _counts(name: str, verdicts: Sequence[Verdict]) -> str:
    sums = [f"{sum(getattr(one, column) for one in verdicts)}/{len(verdicts)}" for column in _COLUMNS]
    unexplained = statistics.median(one.unexplained for one in verdicts) if verdicts else 0.0
    length: Any = statistics.median(one.truth_ms for one in verdicts) if verdicts else 0.0
    return _row(name, *sums, f"{unexplained:.2%}", f"{length:.1f}")


def _row(name: str, *cells: str) -> str:
    return f"{name:15}" + "".join(f"{cell:>9}" for cell in cells[:5]) + "".join(f"{cell:>13}" for cell in cells[5:])


def _invented(ledgers: Sequence[dict[str, float]]) -> str:
    held = [one for one in ledgers if max(one, key=lambda cause: one[cause]) in _NOT_RUNNING]
    others = [{cause: round(ms, 1) for cause, ms in one.items()} for one in ledgers if one not in held]
    return "; ".join([f"{len(others)}, and {len(held)} while its thread was kept from running", *map(str, others)])


if __name__ == "__main__":
    main()
