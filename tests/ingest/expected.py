"""What must be read from each file in samples/traces: `NAME.expected.json` beside it.

`python -m tests.ingest.expected` writes them anew; look at the difference before you keep it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stallscope.errors import UnreadableInput
from stallscope.ingest.recognise import ingest
from stallscope.recording.nouns import Loop, Recording, Stall

TRACES = Path(__file__).parents[2] / "samples" / "traces"
STALLS_SHOWN = 8


def traces() -> list[Path]:
    """All recorded traces; Dropbox's lies beside their folder."""
    own = [path for path in TRACES.iterdir() if not path.name.endswith((".expected.json", ".md"))]
    return [*sorted(own), TRACES.parent / "dropbox_funclatency.txt"]


def expectation(trace: Path) -> Path:
    return TRACES / f"{trace.name}.expected.json"


def summary(trace: Path) -> dict[str, Any]:
    """The verdict on a trace, or the refusal."""
    try:
        return _summary(ingest(trace))
    except UnreadableInput as error:
        return {"refused": str(error).replace(str(TRACES), "samples/traces")}


def _summary(recording: Recording) -> dict[str, Any]:
    longest = sorted(recording.stalls, key=lambda stall: -stall.duration_ns)[:STALLS_SHOWN]
    return {
        "source": recording.source,
        "loops": [_loop(loop) for loop in recording.loops],
        "stalls": len(recording.stalls),
        "longest": [_stall(stall) for stall in longest],
        "missing": [missing.what for missing in recording.fidelity.missing],
        "notes": list(recording.notes),
    }


def _loop(loop: Loop) -> dict[str, Any]:
    counts = loop.coarse.counts if loop.coarse else loop.counts.values()
    wall_ms = (loop.last_ns - loop.opened_ns) / 1e6
    return {
        "kind": loop.kind,
        "name": loop.name,
        "iterations": sum(counts),
        "wall_ms": wall_ms,
        "polls": loop.zero_waits,
    }


def _stall(stall: Stall) -> str:
    """In one line: length, then the heaviest call or handler."""
    line = f"{stall.duration_ns / 1e6:.3f} ms"
    for call in stall.calls[:1]:
        resource = call.call.resource
        touched = f"{resource.kind} {resource.name}" if resource else "?"
        line += f" {call.call.name} {call.duration_ns / 1e6:.3f} ms {touched}"
    for time in stall.handlers[:1]:
        line += f" {time.handler.name} {time.handler.file}:{time.handler.line}"
    return line


def main() -> None:
    for trace in traces():
        text = json.dumps(summary(trace), indent=1, ensure_ascii=False)
        expectation(trace).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
