"""Texts that are recognised, and hold nothing from which stalls could be told: each with the reason and a way on."""

from __future__ import annotations

import re

from stallscope.errors import UnreadableInput
from stallscope.ingest.source import Source
from stallscope.recording.nouns import Recording

WAY_ON = "record single calls instead, with strace -f -ttt -T -yy -p PID or perf trace -p PID"
SYSCOUNT = re.compile(r"^SYSCALL +COUNT|^PID +COMM +COUNT", re.MULTILINE)
OFFCPUTIME = re.compile(r"^Tracing off-CPU time \(us\)", re.MULTILINE)
STRACE_C = re.compile(r"^% time +seconds +usecs/call", re.MULTILINE)


def is_syscount(head: str) -> bool:
    return "Tracing" in head and SYSCOUNT.search(head) is not None


def is_offcputime(head: str) -> bool:
    return OFFCPUTIME.search(head) is not None


def is_strace_summary(head: str) -> bool:
    return STRACE_C.search(head) is not None


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
