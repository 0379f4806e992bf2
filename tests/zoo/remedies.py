"""Does a what-if come true?  ``python -m tests.zoo.remedies [ROUNDS [SECONDS]]`` tries it on the sample server.

Each round records the sample without a remedy, and then under each of its remedies in turn.  What the first recording
advises and foretells is held against what the others show: the share of wall time in stalls, by `stallscope compare`.
Prints the median of all rounds for each remedy; the exit code is 1 where one was not advised, or where the median was
foretold more than a quarter wrong.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from stallscope.analysis.compare import CLOSE, compare
from stallscope.analysis.examine import examine
from stallscope.analysis.findings import Culprit, Findings, Removal
from stallscope.recording.nouns import Recording
from stallscope.recording.reader import read

SAMPLE = Path(__file__).parents[2] / "samples" / "file_server.py"
ROUNDS, SECONDS = 3, 8.0


@dataclass(frozen=True)
class Remedy:
    """One of the sample's: the calls that it takes off the loop, and the catalogue's entries that advise it."""

    fix: str
    calls: frozenset[str]
    advised_as: frozenset[str]


REMEDIES = (
    Remedy("read-offload", frozenset({"read"}), frozenset({"read"})),
    Remedy("open-read-offload", frozenset({"read", "openat"}), frozenset({"read", "open"})),
    Remedy("sendfile", frozenset({"read", "openat"}), frozenset({"file to socket", "open"})),
    Remedy("buffered-log", frozenset({"write"}), frozenset({"log file"})),
    Remedy("syslog", frozenset({"write"}), frozenset({"datagram log"})),
    Remedy("all", frozenset({"read", "openat", "write"}), frozenset({"read", "open", "log file"})),
)


@dataclass
class Tried:
    """What all rounds say of one remedy; shares are of wall time."""

    foretold: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    not_advised: set[str] = field(default_factory=set)

    @property
    def error(self) -> float:
        """Of the medians; 0 where both are as good as nothing."""
        foretold, measured = median(self.foretold), median(self.measured)
        return (foretold - measured) / measured if max(foretold, measured) > 0.005 and measured else 0.0

    @property
    def failed(self) -> bool:
        """Whether it was not advised, or foretold wrongly."""
        return bool(self.not_advised) or abs(self.error) > CLOSE


def record(directory: Path, seconds: float, *fix: str) -> Recording:
    """A recording of the sample under load."""
    path = directory / f"{'-'.join(fix) or 'none'}.stall"
    arguments = [word for name in fix for word in ("--fix", name)]
    command = [sys.executable, "-c", "from stallscope.cli import main; main()", "run", "--force", "-o", str(path)]
    subprocess.run([*command, str(SAMPLE), "--demo", str(seconds), *arguments], check=True, capture_output=True)
    return read(path)


def culprits_of(found: Findings, calls: frozenset[str]) -> list[Culprit]:
    """The culprits that block in one of these calls."""
    return [one for one in found.culprits if one.cause == "blocking-syscall" and one.syscall in calls]


def advised(culprits: list[Culprit]) -> set[str]:
    """The catalogue's entries that these were told."""
    told = [one.advice for one in culprits if one.advice]
    return {advice.remedy for one in told for advice in (one, *one.also)}


def try_once(before: Recording, after: Recording, remedy: Remedy, tried: Tried) -> None:
    """One round of one remedy."""
    mine = culprits_of(examine(before), remedy.calls)
    tried.not_advised |= remedy.advised_as - advised(mine)
    score = compare(before, after, Removal(tuple(one.rank for one in mine))).score
    if score is not None:
        tried.foretold.append(score.predicted_share)
        tried.low.append(score.low_share)
        tried.high.append(score.high_share)
        tried.measured.append(score.measured_share)


def run(rounds: int, seconds: float) -> dict[str, Tried]:
    """All remedies, so many times in turn."""
    tried = {remedy.fix: Tried() for remedy in REMEDIES}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            before = record(Path(directory), seconds)
            for remedy in REMEDIES:
                try_once(before, record(Path(directory), seconds, remedy.fix), remedy, tried[remedy.fix])
    return tried


def row(fix: str, one: Tried) -> str:
    """A line of the table."""
    foretold, low, high, measured = (100 * median(shares) for shares in (one.foretold, one.low, one.high, one.measured))
    spread = f"[{100 * min(one.measured):.1f} {100 * max(one.measured):.1f}]"
    verdict = f"not advised: {', '.join(sorted(one.not_advised))}" if one.not_advised else f"{100 * one.error:+.0f} %"
    reach = f"[{low:.1f} {high:.1f}]"
    return f"{fix:<18}{foretold:>8.1f} {reach:<13}{measured:>9.1f} {spread:<13} {verdict}"


def main() -> int:
    """Try, print, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    tried = run(rounds, float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS)
    print(f"stall time as a share of wall time in %, medians of {rounds} rounds")
    print(f"{'remedy':<18}{'foretold':>8} {'[from to]':<13}{'measured':>9} {'[least most]':<13} off by")
    for fix, one in tried.items():
        print(row(fix, one))
    return int(any(one.failed for one in tried.values()))


if __name__ == "__main__":
    sys.exit(main())
