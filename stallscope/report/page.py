"""Lines of a report as text: wrapped to the terminal's width, in colour where it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import StringIO
from textwrap import wrap

from rich.console import Console
from rich.text import Text

NARROWEST = 60

_UNIT = re.compile(r"(?<=\d) (?=(?:%|s|ms|µs|ns)(?!\w))")
_JOINED = "\xa0"  # a number is not parted from its unit

Lines = Iterator[str | Text]


def fitting(width: int) -> int:
    """The columns that a report uses of a terminal so wide."""
    return max(NARROWEST, width)


def print_lines(lines: Iterable[str | Text], width: int, colour: bool) -> str:
    """The lines as text, `width` columns wide; `colour` adds terminal escapes."""
    out = StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for line in lines:
        for part in _wrapped(line if isinstance(line, Text) else Text(line), width):
            console.print(part, soft_wrap=True)
    return out.getvalue()


def _wrapped(text: Text, width: int) -> list[Text]:
    """A line of words as lines of that width, the later ones indented; what is no prose is left as it is."""
    if text.no_wrap or text.cell_len <= width:
        text.rstrip()
        return [text]
    indent = " " * (len(text.plain) - len(text.plain.lstrip()) + 2)
    parts = wrap(_UNIT.sub(_JOINED, text.plain), width, subsequent_indent=indent, break_on_hyphens=False)
    return [Text(part.replace(_JOINED, " "), style=text.style) for part in parts]
