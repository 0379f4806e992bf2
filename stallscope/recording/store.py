"""Writes a recording that is there already, as a whole: what ``analyze --save`` keeps of a foreign trace."""

from __future__ import annotations

from pathlib import Path

from stallscope.errors import UnreadableInput
from stallscope.recording.file import RecordingStopped
from stallscope.recording.nouns import Recording
from stallscope.recording.writer import Writer


def save(recording: Recording, path: Path, *, force: bool = False, command: str = "") -> None:
    """Write all of a recording to a new ``.stall`` file.

    Raises UnreadableInput when the file cannot be made, or not be written to its end.
    """
    writer = Writer(
        path,
        source=recording.source,
        threshold_ns=recording.threshold_ns,
        started_ns=recording.started_ns,
        started_wall_s=recording.started_wall_s or 0.0,
        force=force,
        command=command,
    )
    try:
        store(recording, writer)
        writer.close(recording.ended_ns)
    except RecordingStopped as error:
        raise UnreadableInput(f"{path} could not be written: {error.reason}; give another place") from error


def store(recording: Recording, writer: Writer) -> None:
    """Hand all of a recording to a writer that has none yet.

    The writer numbers processes and loops anew.  Raises RecordingStopped when nothing more can be written.
    """
    processes: dict[int, int] = {}
    loops: dict[int, int] = {}
    for process in recording.processes:
        row = (process.pid, process.parent_pid, process.program, process.runtime, process.started_ns)
        processes[process.id] = writer.process(*row)
        if process.ended_ns is not None:
            writer.process_ended(processes[process.id], process.ended_ns, process.ending)
    for loop in recording.loops:
        number = writer.loop(processes[loop.process_id], loop.tid, loop.kind, loop.name, loop.opened_ns)
        loops[loop.id] = number
        writer.loop_seen(number, loop.last_ns, loop.zero_waits, loop.cpu_ns)
        writer.histogram(number, loop.last_ns, loop.counts)
        if loop.coarse:
            writer.coarse(number, loop.coarse)
    for counted in recording.handlers:
        writer.handler_histogram(writer.handler(processes[counted.process_id], counted.handler), counted.counts)
    for site in recording.call_sites:
        writer.call_site(site._replace(process_id=processes[site.process_id]))
    for pool in recording.executors:
        writer.executor(pool._replace(process_id=processes[pool.process_id]))
    for stall in recording.stalls:
        writer.stall(stall._replace(loop_id=loops[stall.loop_id]))
    _store_words(recording, writer)


def _store_words(recording: Recording, writer: Writer) -> None:
    for missing in recording.fidelity.missing:
        writer.missing(missing)
    for note in recording.notes:
        writer.note(note)
    writer.level(recording.fidelity.level)
    writer.recorder(recording.recorder)
    writer.counts_calls(sorted(recording.counted_calls or ()))
    writer.suppressed(recording.suppressed)
