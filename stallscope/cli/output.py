"""What commands print on stdout."""

from __future__ import annotations

import os
import sys


def emit(text: str) -> None:
    """Prints a report; a reader that has gone away (``| head``) has seen what it wanted, which is no error."""
    stream = sys.stdout
    try:
        stream.write(text if text.endswith("\n") else text + "\n")
        stream.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more as it exits, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        emit(text.encode(encoding, "replace").decode(encoding))
