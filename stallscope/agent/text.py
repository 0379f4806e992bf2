"""JSON text from plain values, without importing ``json`` into somebody else's process.

``import json`` would bring ``re`` and ``enum`` into every observed program: milliseconds at its start, and entries in
its ``sys.modules`` that it did not ask for. What ``json`` itself uses is written in C, and always there in CPython; the
same in Python kept the GIL for more than half of the 1.7 ms that a large stall's record took.
"""

from __future__ import annotations

TYPE_CHECKING = False  # ``typing`` is not imported into the observed program
if TYPE_CHECKING:
    from typing import Any

_encoded: Any
try:
    from _json import encode_basestring_ascii, make_encoder
except ImportError:  # an interpreter without CPython's accelerator
    from json import JSONEncoder

    _encoded = JSONEncoder(separators=(",", ":")).iterencode
else:

    def _refuse(value: object) -> None:
        raise TypeError(f"no JSON for {type(value).__name__}")

    _encoded = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)


def encode(value: object) -> str:
    """JSON of None, bool, int, str, and of lists, tuples and str-keyed dicts of these; TypeError for others."""
    return "".join(_encoded(value, 0))
