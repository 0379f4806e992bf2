"""Damaged traces: `python -m tests.ingest.fuzz LINES [FORMAT ...]` damages that many lines of each format.

`nice python -m tests.ingest.fuzz 1000000` takes hours, most of them for hlog.  A fifth of all lines is damaged.

Cut lines (torn, as a killed recorder or an interleaved terminal leaves them) must not change any duration: whatever
stall is read from the damaged trace is in the whole one.  Flipped bytes may change what a line says; then nothing
may be longer than the trace.  In neither case may anything but UnreadableInput be raised.

Where half of all lines were cut, one piece of some 1,400 gave a stall that was none: every wait on the loop's own
descriptor was gone, and a wait inside a handler was taken for the loop's.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from stallscope.analysis.modes import Bins
from stallscope.errors import UnreadableInput
from stallscope.ingest.rebuild import ROUNDING_NS
from stallscope.ingest.recognise import ingest, recognise
from stallscope.ingest.source import Source
from stallscope.recording.nouns import Recording
from tests.ingest.expected import traces

Damage = Callable[[random.Random, bytes], bytes]


def cut(rng: random.Random, line: bytes) -> bytes:
    return line[: rng.randrange(1, len(line) + 1)] if line else line


def flip(rng: random.Random, line: bytes) -> bytes:
    at = rng.randrange(len(line) + 1)
    return line[:at] + bytes([rng.choice(b"0123456789 <>()=,.\"'[]{}\\\xff\0abz")]) + line[at + rng.randrange(3) :]


def damaged(rng: random.Random, data: bytes, damage: Damage, share: float) -> tuple[bytes, int]:
    """The data with some of its lines damaged, and how many."""
    lines = data.split(b"\n")
    chosen = [number for number in range(len(lines)) if rng.random() < share]
    for number in chosen:
        lines[number] = damage(rng, lines[number])
    return b"\n".join(lines), len(chosen)


def read(path: Path, data: bytes, form: str) -> Recording | None:
    path.write_bytes(data)
    try:
        return ingest(path, format=form)
    except UnreadableInput:
        return None


def lengths(recording: Recording) -> Counter[tuple[int, bool]]:
    return Counter((stall.duration_ns, stall.finished) for stall in recording.stalls)


def check_cut(whole: Recording, torn: Recording | None) -> None:
    """No stall but those of the whole trace (one cut off at its end may be unfinished)."""
    if torn is None:
        return
    if whole.source == "seastar":  # where a stall's last report is cut, an earlier and shorter one is left
        assert max(lengths(torn), default=(0, True)) <= max(lengths(whole), default=(0, True))
        return
    invented = [length for length in lengths(torn) - lengths(whole) if length[1]]
    assert not invented, f"{whole.path}: {invented} ns"
    check_calls(torn)


def check_calls(recording: Recording) -> None:
    """No single call is longer than its stall."""
    for stall in recording.stalls:
        longest_ns = max((call.duration_ns for call in stall.calls if call.count == 1), default=0)
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


def fuzz(traces: list[Path], at_least: int, rng: random.Random, scratch: Path) -> int:
    """Damage lines of traces of one format until there were so many; returns how many there were."""
    contents = [trace.read_bytes() for trace in traces]
    form, done = recognise(Source(traces[0])), 0
    while done < at_least:
        done += damage_once(rng.choice(contents), form, rng, scratch)
    return done


def damage_once(data: bytes, form: str, rng: random.Random, scratch: Path) -> int:
    """Read a part of a trace whole, with some lines cut, and with some changed; returns how many were damaged."""
    lines = data.split(b"\n")
    part = b"\n".join(lines[: rng.randrange(min(20, len(lines)), len(lines) + 1)])
    whole = read(scratch, part, form)
    share = max(rng.choice((0.002, 0.02, 0.2)), min(0.5, 10 / len(lines)))
    torn, count = damaged(rng, part, cut, share)
    if whole is not None:
        check_cut(whole, read(scratch, torn, form))
    flipped, more = damaged(rng, part, flip, share)
    check_flipped(read(scratch, flipped, form))
    return count + more


def by_format() -> dict[str, list[Path]]:
    """The recorded traces of each format."""
    found: dict[str, list[Path]] = {}
    for trace in traces():
        found.setdefault(recognise(Source(trace)), []).append(trace)
    return found


def main() -> None:
    """Print a row for each format as it is done."""
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        for form, files in by_format().items():
            if form in (sys.argv[2:] or [form]):
                began_s = time.process_time()
                done = fuzz(files, lines, random.Random(lines), Path(folder) / "damaged")
                print(f"{form:20} {done:12,} lines {time.process_time() - began_s:8.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
