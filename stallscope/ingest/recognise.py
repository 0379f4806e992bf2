"""Which foreign format a file has, by its content, and the one way to read it: `ingest`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stallscope.errors import UnreadableInput
from stallscope.ingest import (
    asyncio_log,
    bpftrace,
    chrome,
    funclatency,
    hlog,
    node_histogram,
    perf_sched,
    perf_script,
    perf_summary,
    perf_trace,
    refusals,
    seastar,
    slower,
    strace,
)
from stallscope.ingest.source import Progress, Source
from stallscope.recording.merge import merged
from stallscope.recording.nouns import Recording


@dataclass(frozen=True, slots=True)
class Format:
    """A foreign format: how to know it by the first 64 KiB of text, and how to read it (or to say why not)."""

    description: str
    recognises: Callable[[str], bool]
    read: Callable[[Source, int], Recording]


FORMATS: dict[str, Format] = {
    "perf-data": Format("perf's binary file (refused)", refusals.is_perf_data, refusals.refuse_perf_data),
    "hlog": Format("HdrHistogram log, jHiccup", hlog.recognises, hlog.read),
    "bpftrace-json": Format("bpftrace -f json, hist() and lhist()", bpftrace.recognises_json, bpftrace.read_json),
    "node-histogram": Format("Node's perf_hooks histogram as JSON", node_histogram.recognises, node_histogram.read),
    "chrome": Format("Chrome trace event JSON, viztracer, Perfetto", chrome.recognises, chrome.read),
    "funclatency": Format("bcc funclatency", funclatency.recognises, funclatency.read),
    "bpftrace": Format("bpftrace hist() and lhist()", bpftrace.recognises, bpftrace.read),
    "slower": Format("bcc fileslower, ext4slower …", slower.recognises, slower.read),
    "syscount": Format("bcc syscount (refused)", refusals.is_syscount, refusals.refuse_syscount),
    "offcputime": Format("bcc offcputime (refused)", refusals.is_offcputime, refusals.refuse_offcputime),
    "strace-c": Format("strace -c (refused)", refusals.is_strace_summary, refusals.refuse_strace_summary),
    "perf-trace-summary": Format("perf trace -s", perf_summary.recognises, perf_summary.read),
    "perf-script": Format(
        "perf script, raw_syscalls or syscalls, with sched", perf_script.recognises, perf_script.read
    ),
    "perf-sched": Format("perf script, the scheduler's events alone", perf_sched.recognises, perf_sched.read),
    "perf-trace": Format("perf trace text", perf_trace.recognises, perf_trace.read),
    "seastar": Format("Seastar's reactor stalls in a log", seastar.recognises, seastar.read),
    "asyncio-log": Format("asyncio's slow-handler lines in a log", asyncio_log.recognises, asyncio_log.read),
    "strace": Format("strace text", strace.recognises, strace.read),
}
"""By name, in the order in which they are tried: what is unmistakable first."""


def ingest(
    path: Path, *, format: str | None = None, threshold_ns: int = 10_000_000, progress: Progress | None = None
) -> Recording:
    """The recording that a foreign trace holds; `Path("-")` is standard input, `.gz`, `.xz` and `.zst` are unpacked.

    `format` is a name of FORMATS, and overrides the content.  `progress` is called with the bytes of the file read so
    far and its size.  Raises UnreadableInput for content that is unknown, cannot be opened, or supports no verdict.
    """
    if format is not None and format not in FORMATS:
        raise UnreadableInput(f"there is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    source = Source(path, progress)
    recording = FORMATS[format or recognise(source)].read(source, threshold_ns)
    told = recording.stalls or any(loop.counts or loop.coarse for loop in recording.loops)
    if format and not told and not FORMATS[format].recognises(_text(source)):
        raise UnreadableInput(f"{source.name} holds nothing of the format {format}: {_way_on(source)}.")
    return recording


def _text(source: Source) -> str:
    return source.head.decode("utf-8", "replace")


def _recognised(text: str) -> str | None:
    return next((name for name, form in FORMATS.items() if form.recognises(text)), None)


def _way_on(source: Source) -> str:
    name = _recognised(_text(source))
    return f"it looks like {name}, so leave out --format" if name else "leave out --format, and it will be recognised"


def ingest_all(
    paths: Sequence[Path],
    *,
    format: str | None = None,
    threshold_ns: int = 10_000_000,
    progress: Progress | None = None,
) -> Recording:
    """The recording that one or more foreign traces hold together; see `ingest`.

    The files of `strace -ff -o NAME`, which are NAME.TID, are one trace.
    """
    recordings = []
    for files in _sets(paths):
        if len(files) > 1 and format in (None, "strace") and all(_is_strace(file, format) for file in files):
            sources = (Source(file, progress) for file in sorted(files, key=lambda file: int(file.suffix[1:])))
            recordings.append(strace.read_set(sources, threshold_ns))
        else:
            recordings += [ingest(file, format=format, threshold_ns=threshold_ns, progress=progress) for file in files]
    return merged(recordings)


def _sets(paths: Iterable[Path]) -> list[list[Path]]:
    """The files in their order, those that differ in a number behind the last dot together."""
    sets: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(paths):
        sets.setdefault(path.with_suffix("") if path.suffix[1:].isdigit() else path, []).append(path)
    return list(sets.values())


def _is_strace(path: Path, format: str | None) -> bool:
    return format == "strace" or recognise(Source(path)) == "strace"


def recognise(source: Source) -> str:
    """The name of a source's format.  Raises UnreadableInput when it has none that is known."""
    if not source.head:
        raise UnreadableInput(f"{source.name} is empty: nothing was recorded, or the recorder was killed first.")
    head = _text(source)
    if name := _recognised(head):
        return name
    for pattern, instead, what, way_on in refusals.NEAR_MISSES:
        if (changed := pattern.sub(instead, head)) != head and (name := _recognised(changed)):
            raise UnreadableInput(f"{source.name} looks like {name} with {what}: {way_on}.")
    what = "binary, and " if b"\0" in source.head else ""
    raise UnreadableInput(
        f"{source.name} is {what}in no format that stallscope knows: if it is one of {', '.join(FORMATS)}, "
        "say so with --format."
    )
