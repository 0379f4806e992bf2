"""The times of log lines."""

from __future__ import annotations

import re
from datetime import datetime, timezone

SYSLOG_STAMP = re.compile(r"\b((?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d)\b")
ISO_STAMP = re.compile(r"\b(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{3,6}))?")
SECOND_NS = 10**9


def stamp_ns(line: str) -> int | None:
    """The time of a log line, syslog's (its year unknown: 2000, a leap year) or ISO 8601, as UTC."""
    try:
        if found := ISO_STAMP.search(line[:120]):
            moment = datetime.fromisoformat(f"{found[1]}T{found[2]}").replace(tzinfo=timezone.utc)
            return int(moment.timestamp()) * SECOND_NS + int((found[3] or "0").ljust(9, "0"))
        if found := SYSLOG_STAMP.search(line[:120]):
            moment = datetime.strptime(f"2000 {found[1]}", "%Y %b %d %H:%M:%S").replace(tzinfo=timezone.utc)
            return int(moment.timestamp()) * SECOND_NS
    except ValueError:
        return None
    return None
