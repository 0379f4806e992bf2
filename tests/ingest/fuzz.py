"""Damaged traces: `python -m tests.ingest.fuzz LINES [FORMAT ...]` damages that many lines of each format.

`nice python -m tests.ingest.fuzz 1000000` takes an hour or so.  Up to half of all lines are damaged, in two ways:

Cut lines (torn, as a killed recorder or an interleaved terminal leaves them) must not change any duration: whatever
iteration, stall or bucket is read from the damaged trace is in the whole one.  Flipped bytes may change what a line
says; then nothing may be longer than the trace.  In neither case may anything but UnreadableInput be raised, also where
the format has to be recognised first.

A piece that fails is left in the directory that the command names, beside the whole one.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from stallscope.analysis.modes import Bins
from stallscope.errors import UnreadableInput
from stallscope.ingest.rebuild import ROUNDING_NS
from stallscope.ingest.recognise import ingest, recognise
from stallscope.ingest.source import Source
from stallscope.recording.nouns import Recording
from tests.ingest.expected import traces
from tests.ingest.variants import REFUSED, variants

Damage = Callable[[random.Random, bytes], bytes]
SHARES = (0.002, 0.02, 0.2, 0.5)
"""Of all lines, that are damaged."""
THRESHOLD_NS = 1_000_000
"""Low, so that there are many stalls."""


@dataclass
class Tally:
    """What was done so far: lines damaged, pieces read, and how much of the cut ones was held against the whole."""

    lines: int = 0
    pieces: int = 0
    iterations: int = 0
    stalls: int = 0
    failures: int = 0


def cut(rng: random.Random, line: bytes) -> bytes:
    return line[: rng.randrange(1, len(line) + 1)] if line else line


def flip(rng: random.Random, line: bytes) -> bytes:
    at = rng.randrange(len(line) + 1)
    return line[:at] + bytes([rng.choice(b"0123456789 <>()=,.\"'[]{}\\\xff\0abz")]) + line[at + rng.randrange(3) :]


def damaged(rng: random.Random, data: bytes, damage: Damage, share: float) -> tuple[bytes, int]:
    """The data with some of its lines damaged, and how many."""
    lines = data.split(b"\n")
    if damage is cut and data[:1] in b"{[" and rng.random() < 0.5:  # JSON that breaks off is read up to there
        kept = lines[: rng.randrange(len(lines))]
        return b"\n".join([*kept, cut(rng, lines[len(kept)])]), 1
    chosen = [number for number in range(len(lines)) if rng.random() < share]
    for number in chosen:
        lines[number] = damage(rng, lines[number])
    return b"\n".join(lines), len(chosen)


def read(path: Path, data: bytes, form: str | None) -> Recording | None:
    path.write_bytes(data)
    try:
        return ingest(path, format=form, threshold_ns=THRESHOLD_NS)
    except UnreadableInput:
        return None


@lru_cache(maxsize=64)
def read_whole(path: Path, data: bytes, form: str) -> Recording | None:
    """An undamaged text, read once where pieces are alike (a histogram of one line is never cut short)."""
    return read(path, data, form)


def lengths(recording: Recording) -> Counter[tuple[int, bool]]:
    return Counter((stall.duration_ns, stall.finished) for stall in recording.stalls)


def iterations(recording: Recording, names: Collection[str]) -> Counter[object]:
    """The iterations by bucket, and by loop and bucket where a loop has one of these names (names may be cut, too)."""
    found: Counter[object] = Counter()
    for loop in recording.loops:
        counts: dict[Any, int] = dict(loop.counts)
        if loop.coarse:
            counts |= dict(zip(pairwise(loop.coarse.edges_ns), loop.coarse.counts, strict=True))
        found.update(counts)
        found.update({(loop.name, bucket): count for bucket, count in counts.items() if loop.name in names})
    return +found


def check_cut(whole: Recording, torn: Recording | None) -> tuple[int, int]:
    """No iteration and no stall but those of the whole trace; returns how many of each there were."""
    if torn is None:
        return 0, 0
    check_calls(torn)
    if whole.source == "seastar":  # where a stall's last report is cut, an earlier and shorter one is left
        assert max(lengths(torn), default=(0, True)) <= max(lengths(whole), default=(0, True))
        return 0, len(torn.stalls)
    # One that is cut off at its end may be unfinished.
    invented = [length for length in lengths(torn) - lengths(whole) if length[1]]
    assert not invented, f"stalls {invented} ns"
    names = {loop.name for loop in whole.loops}
    more = iterations(torn, names) - iterations(whole, names)
    assert not more, f"iterations {more}"
    return iterations(torn, ()).total(), len(torn.stalls)


def check_calls(recording: Recording) -> None:
    """No single call is longer than its stall."""
    for stall in recording.stalls:
        longest_ns = max((call.duration_ns for call in stall.calls if call.calls == 1), default=0)
        assert longest_ns <= stall.duration_ns + ROUNDING_NS, (recording.path, stall)


def check_flipped(flipped: Recording | None) -> None:
    """Nothing negative, nothing longer than the trace."""
    if flipped is None:
        return
    span_ns = flipped.ended_ns - flipped.started_ns
    assert all(0 <= stall.duration_ns <= span_ns for stall in flipped.stalls)
    assert all(count >= 0 for loop in flipped.loops for count in loop.counts.values())
    assert all(loop.opened_ns <= loop.last_ns for loop in flipped.loops)
    check_calls(flipped)
    for loop in flipped.loops:
        if loop.coarse:  # raises ValueError unless edges and counts make a histogram
            Bins(loop.coarse.edges_ns, loop.coarse.counts, loop.coarse.tick_ns, loop.coarse.per_octave)


def fuzz(contents: list[bytes], form: str, at_least: int, scratch: Path, keep: Path | None = None) -> Tally:
    """Damage lines of texts of one format until there were so many.

    A piece that fails is kept, where `keep` says so, and raises its error otherwise.
    """
    tally, number = Tally(), 0
    while tally.lines < at_least:
        number += 1
        rng = random.Random(number)
        part = _part(rng, rng.choice(contents))
        try:
            damage_once(rng, part, form, scratch, tally)
        except Exception:
            if keep is None:
                raise
            tally.failures += 1
            name = keep / f"{form}-{number}"
            name.with_suffix(".whole").write_bytes(part)
            name.with_suffix(".error").write_text(traceback.format_exc())
            name.with_suffix(".damaged").write_bytes(scratch.read_bytes())
    return tally


def _part(rng: random.Random, data: bytes) -> bytes:
    """The beginning of a text, or all of it."""
    lines = data.split(b"\n")
    return b"\n".join(lines[: rng.randrange(min(20, len(lines)), len(lines) + 1)])


def damage_once(rng: random.Random, part: bytes, form: str, scratch: Path, tally: Tally) -> None:
    """Read a text whole, with some lines cut, and with some changed."""
    share = max(rng.choice(SHARES), min(0.5, 10 / (part.count(b"\n") + 1)))
    torn, torn_lines = damaged(rng, part, cut, share)
    flipped, flipped_lines = damaged(rng, part, flip, share)
    tally.lines += torn_lines + flipped_lines
    tally.pieces += 1
    whole = read_whole(scratch, part, form)
    if whole is not None:
        timed, stalls = check_cut(whole, read(scratch, torn, form))
        tally.iterations += timed
        tally.stalls += stalls
    check_flipped(read(scratch, flipped, rng.choice((form, None))))


def by_format() -> dict[str, list[bytes]]:
    """The recorded traces of each format, in all their shapes."""
    found: dict[str, list[bytes]] = {name: [text] for name, text in REFUSED.items()}
    for trace in traces():
        form = recognise(Source(trace))
        found.setdefault(form, []).extend(variants(form, trace.read_bytes()))
    return found


def main() -> None:
    """Print a row for each format as it is done; leave with 1 where one failed."""
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    memory = Path("/dev/shm")
    keep = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"{'':20} {'lines':>10} {'texts':>9} {'iterations':>11} {'stalls':>9} {'failures':>8} {'CPU s':>6}")
    failures = 0
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for form, contents in by_format().items():
            if form in (sys.argv[2:] or [form]):
                began_s = time.process_time()
                done = fuzz(contents, form, lines, Path(folder) / "damaged", keep)
                failures += done.failures
                print(
                    f"{form:20} {done.lines:10,} {done.pieces:9,} {done.iterations:11,} {done.stalls:9,} "
                    f"{done.failures:8,} {time.process_time() - began_s:6.0f}",
                    flush=True,
                )
    if failures:
        sys.exit(f"{failures} texts failed: see {keep}")
    keep.rmdir()


if __name__ == "__main__":
    main()
