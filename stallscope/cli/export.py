"""``stallscope export FILE --to FORMAT``: what was recorded, for other tools."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stallscope.cli.options import Files, Format, Threshold

if TYPE_CHECKING:
    from stallscope.analysis.findings import Findings

# Each is the file of that name in stallscope.report, and what to do with its output.
FORMATS = {
    "hlog": "any HdrHistogram tool reads it, stallscope analyze too",
    "chrome": "open it in https://ui.perfetto.dev",
    "folded": "draw it with flamegraph.pl, or open it in https://www.speedscope.app",
    "csv": "a row a stall",
}


def export(
    files: Files,
    to: Annotated[str, typer.Option(metavar="hlog|chrome|folded|csv", help="What to write.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="Where to write it; stdout by default, and for -."),
    ] = None,
    loop: Annotated[int | None, typer.Option(metavar="N", help="One loop alone, by its number in the report.")] = None,
    threshold: Threshold = None,
    format: Format = None,
    force: Annotated[bool, typer.Option("--force", help="Let -o replace an existing file.")] = False,
) -> None:
    """Write iterations (hlog) or stalls (chrome, folded, csv) for other tools.

    hlog is an HdrHistogram log, chrome a trace for Perfetto, folded the input of flame graphs in µs of stall time.
    """
    from stallscope.analysis.examine import examine
    from stallscope.cli.inputs import read_inputs
    from stallscope.cli.units import parse_duration_ns

    render = _renderer(to)
    if output == Path("-"):
        output = None
    if output is not None:
        _require_free(output, files, force=force)
    threshold_ns = None if threshold is None else parse_duration_ns(threshold)
    recording = read_inputs(files, format=format, threshold_ns=threshold_ns, intervals=to == "hlog")
    findings = _of_loop(examine(recording, threshold_ns), loop)
    _require_content(findings, to)
    _write(render(findings), to, output)
    _tell_what_is_lost(findings, to)


def _write(text: str, to: str, output: Path | None) -> None:
    from stallscope.cli.output import emit, say

    if output is not None:
        from stallscope.cli.write import write_text

        write_text(output, text)
        say(f"wrote {output}: {FORMATS[to]}")
    elif text:  # an empty line is no folded stack
        emit(text)


def _tell_what_is_lost(findings: Findings, to: str) -> None:
    from stallscope.cli.output import say
    from stallscope.report.words import count, duration

    if to == "hlog":
        if any(one.loop.coarse for one in findings.loops):
            say("the source has coarse buckets: each iteration is as long as the middle of its own")
    elif lost := _without_details(findings):
        say(f"left out, since the recording has their number and no details: {count(lost, 'stall')}")
    elif not findings.stalls:
        say(f"no stall of {duration(findings.threshold_ns)} or more")


def _renderer(to: str) -> Callable[[Findings], str]:
    from stallscope.errors import UnreadableInput

    if to not in FORMATS:
        raise UnreadableInput(f"there is no export {to!r}: choose one of {', '.join(FORMATS)}")
    render: Callable[[Findings], str] = import_module(f"stallscope.report.export_{to}").render
    return render


def _require_free(output: Path, files: list[Path], *, force: bool) -> None:
    """Refuse what would be overwritten, before a long trace is read; devices and pipes cannot be."""
    from stallscope.errors import UnreadableInput

    if output.exists() and any(file.exists() and file.samefile(output) for file in files):
        raise UnreadableInput(f"{output} is what is to be exported; give another name with -o")
    replaceable = output.is_file() or not output.exists()
    if os.path.lexists(output) and replaceable and not force:
        raise UnreadableInput(f"{output} exists already; give another name, or --force to replace it")


def _of_loop(findings: Findings, number: int | None) -> Findings:
    """The findings of one loop; culprits keep their ranks."""
    from stallscope.errors import UnreadableInput

    if number is None:
        return findings
    numbers = sorted(one.loop.id for one in findings.loops)
    if number not in numbers:
        known = f"its loops are {', '.join(map(str, numbers))}" if numbers else "it has none"
        raise UnreadableInput(f"there is no loop {number} in {findings.recording.path}: {known}")
    return replace(
        findings,
        loops=tuple(one for one in findings.loops if one.loop.id == number),
        stalls=tuple(one for one in findings.stalls if one.stall.loop_id == number),
    )


def _require_content(findings: Findings, to: str) -> None:
    """Raises TooLittleData where there is nothing to write; that nothing stalled is worth writing."""
    from stallscope.errors import TooLittleData

    path, iterations = findings.recording.path, sum(one.iterations for one in findings.loops)
    if not iterations and not findings.stalls:
        raise TooLittleData(f"{path} holds no iteration, so there is nothing to export: record again, for longer")
    if to == "hlog" and not iterations:
        raise TooLittleData(
            f"{path} lists only what was slow, and no histogram of its iterations: export its stalls,"
            " --to csv, chrome or folded"
        )
    if to != "hlog" and not findings.stalls and _without_details(findings):
        raise TooLittleData(
            f"{path} counted {_without_details(findings):,} stalls but holds the details of none:"
            " export its histogram, --to hlog"
        )


def _without_details(findings: Findings) -> int:
    return max(0, sum(one.stall_count for one in findings.loops) - len(findings.stalls))
