"""JSON text from plain values, without importing ``json`` into somebody else's process.

``import json`` would bring ``re`` and ``enum`` into every observed program: milliseconds at its
start, and entries in its ``sys.modules`` that it did not ask for.
"""

try:
    from _json import encode_basestring_ascii as _quote
except ImportError:  # an interpreter without CPython's accelerator
    from json import dumps as _quote


def encode(value: object) -> str:
    """JSON of None, bool, int, str, and of lists, tuples and str-keyed dicts of these."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([encode(item) for item in value]) + "]"
    if isinstance(value, dict):
        return "{" + ",".join([_quote(key) + ":" + encode(item) for key, item in value.items()]) + "}"
    raise TypeError(f"no JSON for {type(value).__name__}")
