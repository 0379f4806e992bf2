"""Texts that are recognised, and hold nothing from which stalls could be told: each with the reason and a way on."""

from __future__ import annotations

import re

from stallscope.errors import UnreadableInput
from stallscope.ingest.source import Source
from stallscope.recording.nouns import Recording

WAY_ON = "record single calls instead, with strace -f -ttt -T -yy -p PID or perf trace -p PID"
SYSCOUNT = re.compile(r"^SYSCALL +COUNT|^PID +COMM +COUNT", re.MULTILINE)
OFFCPUTIME = re.compile(r"^Tracing off-CPU time \(us\)", re.MULTILINE)
CALL = re.compile(r"^[^%\n]*\w\(.*\) += ", re.MULTILINE)
STRACE_C = re.compile(r"^% time +seconds +usecs/call", re.MULTILINE)

NEAR_MISSES = (
    (re.compile(r"(?<=\d),(?=\d{3,9}\b)"), ".", "decimal commas, a locale's", "record it again, with LC_ALL=C"),
    (
        re.compile(r"(?<=\d) \[ *[0-9a-f?]+\](?= \S)"), "", "a column of -i or -n",
        "record it without them, or take the column out with sed -E 's/ \\[ *[0-9a-f?]+\\]//'",
    ),
)  # fmt: skip
"""What may be done to a text that is in no format, so that it is in one; what it has, and the way on."""
FINISHED = re.compile(rb"^.*\) += (-?)", re.MULTILINE)
TOOK = re.compile(rb"^ *[\d.]+ \( *(\d{1,10}\.\d{3}) ms\): ", re.MULTILINE)
ENOUGH = 20
"""Calls, from which it can be told that some kind of them is missing."""
QUICK_MS = 0.5
"""Of so many calls one is quicker, unless quick ones were left out."""


def refuse_selections(source: Source) -> None:
    """Raise UnreadableInput where waits were left out: what lies between two others is no iteration."""
    signs, took_ms = FINISHED.findall(source.head), [float(ms) for ms in TOOK.findall(source.head)]
    if len(signs) >= ENOUGH and all(signs):
        raise UnreadableInput(
            f"{source.name} holds only calls that failed, so no iteration can be timed: record it without -Z or "
            "--failure."
        )
    if len(took_ms) >= ENOUGH and min(took_ms) >= QUICK_MS:
        raise UnreadableInput(
            f"{source.name} holds no call under {min(took_ms):g} ms, so waits are missing, and no iteration can be "
            "timed: record it without --duration, and with all calls."
        )


def is_syscount(head: str) -> bool:
    return "Tracing" in head and SYSCOUNT.search(head) is not None


def is_offcputime(head: str) -> bool:
    return OFFCPUTIME.search(head) is not None


def is_strace_summary(head: str) -> bool:
    """A table alone: behind a trace (-C) it is the trace's."""
    table = STRACE_C.search(head)
    return table is not None and not CALL.search(head, 0, table.start())


def is_perf_data(head: str) -> bool:
    return head.startswith("PERFILE2")


def refuse_syscount(source: Source, threshold_ns: int) -> Recording:
    raise UnreadableInput(
        f"{source.name} is a syscount table, sums over all calls, from which no stall can be told: {WAY_ON}."
    )


def refuse_offcputime(source: Source, threshold_ns: int) -> Recording:
    raise UnreadableInput(
        f"{source.name} is from offcputime, off-CPU sums by stack, in which idle waits and stalls are one: {WAY_ON}."
    )


def refuse_strace_summary(source: Source, threshold_ns: int) -> Recording:
    raise UnreadableInput(
        f"{source.name} is an strace -c table, sums over all calls, from which no stall can be told: {WAY_ON}."
    )


def refuse_perf_data(source: Source, threshold_ns: int) -> Recording:
    raise UnreadableInput(
        f"{source.name} is perf's own binary file: print it as text first, with perf script -i FILE > FILE.txt."
    )
