"""A recorder to kill: ``python -m tests.recording.recorder forever|closing PATH``."""

from __future__ import annotations

import sys
from pathlib import Path

from stallscope.recording.writer import SECOND_NS, Writer
from tests.recording.examples import STALL, STARTED_NS, with_one_loop


def record_second(writer: Writer, second: int) -> None:
    """One stall and two iterations at a second of the recording, not committed."""
    at_ns = STARTED_NS + second * SECOND_NS
    writer.stall(STALL._replace(start_ns=at_ns, duration_ns=SECOND_NS))
    writer.histogram(1, at_ns, {300: 1, 900 + second % 100: 1})


def forever(path: Path) -> None:
    """Commit, print how many seconds were committed, and so on."""
    writer = with_one_loop(path)
    for second in range(1_000_000):
        record_second(writer, second)
        writer.commit()
        print(second + 1, flush=True)


def closing(path: Path) -> None:
    """Commit 50 seconds, say so, and close."""
    writer = with_one_loop(path)
    for second in range(50):
        record_second(writer, second)
    writer.commit()
    print(50, flush=True)
    writer.close(STARTED_NS + 60 * SECOND_NS)


if __name__ == "__main__":
    {"forever": forever, "closing": closing}[sys.argv[1]](Path(sys.argv[2]))
