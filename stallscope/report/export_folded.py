"""Stall time as folded stacks, one line a stack, which flamegraph.pl, speedscope and inferno draw.

``handler;function (file:line);…;[call resource] N``, outermost first, N in µs of stall time.  The lines of a recording
sum to the time of its stalls: what no call explains ends in its cause.  Form: the comment at the head of
flamegraph.pl (Brendan Gregg, FlameGraph); how frames are written is py-spy's `--format raw`.
"""

from __future__ import annotations

import re
from collections import Counter

from stallscope.analysis.culprits import handler_of
from stallscope.analysis.findings import Findings
from stallscope.analysis.ledger import Slice
from stallscope.report.stall_parts import call_text, frames

_SEPARATORS = re.compile(r"[;\x00-\x1f\x7f]")
"""What would end a frame or a line; a path may hold any of it."""


def render(findings: Findings) -> str:
    """The stacks, heaviest first; empty without a stall."""
    sums: Counter[str] = Counter()
    names = {one.loop.id: one.loop.name for one in findings.loops}
    for one in findings.stalls:
        for part in one.parts:
            handler = handler_of(one.stall, part.stack)
            root = handler.name if handler else names.get(one.stall.loop_id, "")
            sums[_stack(root or "loop", part)] += part.ns
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return "".join(f"{stack} {round(ns / 1000)}\n" for stack, ns in ordered if ns >= 500)


def _stack(root: str, part: Slice) -> str:
    leaf = call_text(part.call) if part.call else part.cause
    return ";".join(_SEPARATORS.sub(" ", step) for step in (root, *reversed(frames(part.stack)), f"[{leaf}]"))
