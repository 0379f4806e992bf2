"""strace text: `-f`, one file of `-ff`, `-t`/`-tt`/`-ttt`/`-r`, `-T`, `-y`/`-yy`, with or without `-o`.

Form: strace(1) and the sources' tests.  A line is `[pid ]stamp name(arguments) = result <seconds>`; a call that
another thread's line interrupted comes in two, `… <unfinished ...>` and `<... name resumed>…`.

One regular expression passes over a megabyte at a time, and stops only at lines that tell something: waits, calls that
change descriptors, births and exits, and whatever is not a whole line of strace.  The other lines of an iteration are
read when it turned out to be a stall (`window`).

Durations need `-T` and stamps finer than a second: without them the return of a wait is unknown, and a wait's idle time
would be taken for a stall.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stallscope.errors import UnreadableInput
from stallscope.ingest.refusals import refuse_selections
from stallscope.ingest.source import Source
from stallscope.ingest.strace_cost import inflation
from stallscope.ingest.strace_lines import FRAME, is_line
from stallscope.ingest.strace_reader import Reader
from stallscope.ingest.verdicts import NO_HANDLERS, plural, take_all, unread
from stallscope.ingest.window import Window
from stallscope.recording.nouns import Missing, Recording

NO_T = Missing("durations", "strace ran without -T: when a wait returned is unknown; record with strace -f -ttt -T -yy")
NO_STAMPS = Missing("durations", "the stamps are missing or of whole seconds: record with strace -f -ttt -T -yy")
NO_NAMES = Missing(
    "names of descriptors opened before strace came", "it ran without -y; record with strace -f -ttt -T -yy"
)
ANNOTATED = re.compile(rb"\(\d+<")
NO_CPU = Missing("causes between calls", "strace sees calls only, not CPU time, run queue or locks in user space")


def recognises(head: str) -> bool:
    """At least two lines in three of the first hundred are strace's."""
    lines = head.encode("utf-8", "replace").splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith(FRAME)][:100]
    lines = lines[: max(1, len(lines) - 1)]
    ours = sum(1 for line in lines if is_line(line))
    return ours > 0 and 3 * ours >= 2 * len(lines)


def read(source: Source, threshold_ns: int) -> Recording:
    """A loop for each thread that waits for events again and again."""
    refuse_selections(source)
    return read_set([source], threshold_ns)


def read_set(sources: Iterable[Source], threshold_ns: int) -> Recording:
    """The same from the files of `strace -ff`, one a thread, or from one file."""
    readers: list[Reader] = []
    source = None
    heads: list[bytes] = []
    for source in sources:
        reader = Reader(threshold_ns, source.head, tid_in_name(source), readers[-1] if readers else None)
        reader.cut = take_all(reader, source)
        reader.finish()
        reader.window = Window()  # its text is not needed any more
        readers.append(reader)
        heads.append(source.head)
    if source is None:
        raise UnreadableInput("there is no file to read: name at least one.")
    return _recording(source, heads, readers)


def _recording(source: Source, heads: list[bytes], readers: list[Reader]) -> Recording:
    rebuild = readers[0].rebuild
    missing = [NO_HANDLERS, NO_CPU]
    if any(reader.untimed for reader in readers):
        missing.insert(0, NO_STAMPS if any(reader.clock.coarse for reader in readers) else NO_T)
    elif not any(b"execve(" in head or ANNOTATED.search(head) for head in heads):
        missing.append(NO_NAMES)
    notes = [*inflation(max(heads, key=len), rebuild.threads), *_unread(readers)]
    if halves := sum(reader.halves for reader in readers):
        notes.append(f"{plural(halves, 'interrupted call')} lacked one half and did not count")
    end_ns, lines = max(reader.clock.now_ns for reader in readers), sum(reader.lines.total() for reader in readers)
    recording = rebuild.recording(source, "strace", end_ns, missing, notes, lines)
    return recording if len(readers) == 1 else recording._replace(path=f"{source.path.with_suffix('')}.*")


def tid_in_name(source: Source) -> int:
    """`strace -ff -o NAME` writes NAME.TID."""
    suffix = source.path.suffix[1:]
    return int(suffix) if suffix.isdigit() and len(suffix) < 8 else 0


def _unread(readers: list[Reader]) -> list[str]:
    return unread(sum(reader.unread for reader in readers), any(reader.cut for reader in readers))
