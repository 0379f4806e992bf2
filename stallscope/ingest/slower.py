"""bcc's `fileslower` and `ext4slower` (xfs, btrfs, nfs … alike): single file operations slower than a threshold.

They list operations, not iterations, so there are no modes.  An operation at or above the stall threshold is a stall
of at least that length if its thread runs a loop, which the text cannot tell.
"""

from __future__ import annotations

import re
from collections import Counter

from stallscope.ingest.source import Source
from stallscope.ingest.verdicts import NO_HANDLERS, NO_ITERATIONS, loop_of, process_of, recording_of, unread
from stallscope.recording.nouns import Call, Missing, Recording, Resource, Stall, TimedCall

TIME = r"(?:(?P<s>\d{1,9}\.\d{1,6})|(?P<hms>\d\d:\d\d:\d\d))"
SLOW = re.compile(
    rf"{TIME} +(?P<comm>\S.{{0,15}}?) +(?P<pid>\d{{1,9}}) +(?P<op>[RWOSD]) +(?P<bytes>\d+) +(?:\d+ +)?"
    r"(?P<ms>\d{1,12}\.\d{2}) (?P<file>.+)$"
)
HEADER = re.compile(r"TIME\S* +COMM +PID +[TD] +BYTES +(?:OFF_KB +)?LAT\(ms\) FILENAME")
OPERATION = {"R": "read", "W": "write", "O": "open", "S": "fsync", "D": "getdents"}
TORN = re.compile(r"(?:\d+\.\d+|\d\d:\d\d:\d\d) +\S")
CAVEAT = (
    "each row is one file operation, a stall only where its thread runs an event loop: trace the loop's own (-p PID)"
)


def recognises(head: str) -> bool:
    return HEADER.search(head) is not None


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop of unknown kind for each program and thread, whose stalls are the slow operations."""
    tids: dict[tuple[str, int], int] = {}
    stalls: list[Stall] = []
    quick: Counter[str] = Counter()
    for line in source.lines():
        if row := SLOW.match(line.rstrip()):
            number = tids.setdefault((row["comm"], int(row["pid"])), len(tids) + 1)
            stall = _stall(row, number)
            stalls.extend([stall] if stall.duration_ns >= threshold_ns else [])
            quick["quick"] += stall.duration_ns < threshold_ns
        elif TORN.match(line):
            quick["bad"] += 1
    return recording_of(
        source,
        "slower",
        threshold_ns,
        loops=[loop_of(number, pid, "thread", comm) for (comm, pid), number in tids.items()],
        processes=[process_of(number, pid, comm) for (comm, pid), number in tids.items()],
        stalls=stalls,
        missing=[NO_ITERATIONS, NO_HANDLERS, Missing("stall lengths", "the operation is a lower bound of its stall")],
        notes=[CAVEAT, f"{quick['quick']:,} operations were under the threshold", *unread(quick["bad"])],
    )


def _stall(row: re.Match[str], number: int) -> Stall:
    duration_ns = round(float(row["ms"]) * 1e6)
    call = Call(OPERATION[row["op"]], Resource("path", row["file"]), f"{row['bytes']} bytes")
    start_ns = max(0, _start_ns(row) - duration_ns)  # a row is printed when its operation ends
    return Stall(number, start_ns, duration_ns, calls=(TimedCall(start_ns, duration_ns, call),))


def _start_ns(row: re.Match[str]) -> int:
    if row["s"]:
        return round(float(row["s"]) * 1e9)
    hours, minutes, seconds = map(int, row["hms"].split(":"))
    return (hours * 3600 + minutes * 60 + seconds) * 10**9
