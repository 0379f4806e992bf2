"""How fast foreign texts are read, and in how much memory: ``python -m tests.benchmarks.foreign [--megabytes 1000]``.

Recorded traces are repeated, their stamps moved on, until they fill a file; ``stallscope analyze --json`` reads it in a
process of its own.  The rate is bytes by CPU time of the whole process (interpreter, analysis and report included), so
that a busy machine counts less; the memory is the process's largest resident set.

``--engines`` measures beside it what other ways of reading the same text would take on one core, where they are
installed: polars and DuckDB extracting thread, stamp, name and duration of each line by one pattern (and nothing of
what comes after), and the package stracetools, on a shorter piece.  (strace-parser cannot read thread numbers, and
straceprof reads execve() alone; stracepy, b3-strace-parser and stracing are not on PyPI.)

``--peers`` measures one-pass tools on the same text, each of which tells less than stallscope: awk adding up the time
of each call by name, as `strace -c` does (in perf script's text, where times must be paired first, it counts), and
strace-process-tree, the processes' births.  What is not installed is named.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TRACES = Path(__file__).parents[2] / "samples" / "traces"
STAMPS = {
    "file_server.strace.txt": rb"^(\d+ +)(\d{10}\.\d{6})",
    "nginx.strace.txt": rb"^(\d+ +)(\d{10}\.\d{6})",
    "redis.strace.txt": rb"^(\d+ +)(\d{10}\.\d{6})",
    "file_server.perf-trace.txt": rb"^( *)(\d+\.\d{3})(?= \()",
    "redis.perf-trace.txt": rb"^( *)(\d+\.\d{3})(?= \()",
    "file_server.perf-script.txt": rb"(\] +)(\d+\.\d{6})(?=:)",
    "file_server.perf-script-raw.txt": rb"(\] +)(\d+\.\d{6})(?=:)",
}
"""What stands before a line's stamp, and the stamp."""
PIECE = 2_000_000
PATTERN = r"^(\d+) +(\d+\.\d+) (\w+)\(.* <(\d+\.\d+)>$"
ENGINES = {
    "polars": f"""
import os, sys
os.environ["POLARS_MAX_THREADS"] = "1"
import polars as pl
lines = pl.scan_csv(sys.argv[1], separator="\\x01", has_header=False, quote_char=None, new_columns=["line"])
found = lines.select(pl.col("line").str.extract_groups(r"{PATTERN}").alias("f")).unnest("f")
print(found.filter(pl.col("3") == "epoll_wait").collect(engine="streaming").height)
""",
    "duckdb": f"""
import sys, duckdb
db = duckdb.connect()
db.execute("SET threads = 1")
query = '''SELECT count(*) FROM (SELECT regexp_extract(line, '{PATTERN}', ['t', 's', 'n', 'd']) AS f
FROM read_csv(?, columns = {{'line': 'VARCHAR'}}, delim = chr(1), quote = '', escape = '', header = false,
auto_detect = false)) WHERE f.n = 'epoll_wait' '''
query = query.replace("chr(1)", "'\\x01'")
print(db.execute(query, [sys.argv[1]]).fetchone()[0])
""",
}
STRACETOOLS = (
    "import sys; from stracetools.parser import StraceParser; print(len(StraceParser().parse_file(sys.argv[1])))"
)
_AWK = {
    "strace": """{ t[substr($3, 1, index($3, "(") - 1)] += substr($NF, 2) } END { for (n in t) print n, t[n] }""",
    "perf-trace": """match($0, /[a-z_0-9]+\\(/) { t[substr($0, RSTART, RLENGTH)] += $3 }
        END { for (n in t) print n, t[n] }""",
    "perf-script": """{ n[$5 == "" ? $4 : $5]++ } END { for (e in n) print e, n[e] }""",
}
"""Of `thread stamp name(…) = result <seconds>`, `start ( took ms): name(…)`, and `program thread [cpu] s: event:`."""


def peers(name: str) -> dict[str, list[str]]:
    """The commands of tools that read a trace's format in one pass, but for the file."""
    form = next(form for form in _AWK if f".{form}" in name)
    found = {"awk, as strace -c": ["awk", _AWK[form]]}
    return found | {"strace-process-tree": ["strace-process-tree"]} if form == "strace" else found


def main() -> None:
    """Print a row for each trace, and for each other way that is installed."""
    options = _options()
    print(f"{'':34} {'MB':>6} {'CPU s':>7} {'MB/s':>7} {'peak MiB':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.traces:
            path = Path(folder) / name
            grow(name, options.megabytes * 1_000_000, path)
            command = [options.python, "-m", "stallscope", "analyze", "--json", str(path)]
            _print(name, path, *measure(command))
            for peer, program in peers(name).items() if options.peers else ():
                if shutil.which(program[0], path=options.path):
                    _print(f"  {peer}", path, *measure([*program, str(path)], options.path))
                else:
                    print(f"  {peer}: not measured, {program[0]} is not installed (pip, apt)")
            if options.engines and ".strace" in name:
                _others(options.engines, path)
            path.unlink()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--traces", nargs="+", choices=STAMPS, default=list(STAMPS))
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs stallscope")
    parser.add_argument("--engines", metavar="PYTHON", help="an interpreter that has polars, duckdb and stracetools")
    parser.add_argument("--peers", action="store_true", help="measure one-pass tools as well")
    parser.add_argument("--path", default=os.environ["PATH"], help="where to look for them")
    return parser.parse_args()


def grow(name: str, size: int, path: Path) -> None:
    """Write a recorded trace again and again, its stamps moved on each time, until there are `size` bytes."""
    stamp = re.compile(STAMPS[name])
    pieces: list[tuple[bytes, float | None, bytes]] = []
    digits = 6
    for line in (TRACES / name).read_bytes().splitlines():
        found = stamp.search(line)
        if found:
            digits = len(found[2].partition(b".")[2])
            pieces.append((line[: found.start(2)], float(found[2]), line[found.end(2) :] + b"\n"))
        else:
            pieces.append((line + b"\n", None, b""))
    times = [at for _, at, _ in pieces if at is not None]
    span = (max(times) - min(times)) * (1 + 1 / len(times))
    with path.open("wb") as file:
        turn = 0
        while file.tell() < size:
            file.writelines(_moved(pieces, turn * span, digits))
            turn += 1


def _moved(pieces: list[tuple[bytes, float | None, bytes]], by: float, digits: int) -> Iterator[bytes]:
    for before, at, after in pieces:
        yield before if at is None else b"%s%.*f%s" % (before, digits, at + by, after)


def measure(command: list[str], path: str = os.environ["PATH"]) -> tuple[float, float]:
    """CPU seconds and largest resident set in MiB of a command."""
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    executable = shutil.which(command[0], path=path)
    process = subprocess.Popen(
        command, executable=executable, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _others(python: str, path: Path) -> None:
    """Other ways of reading strace's text, on one core."""
    for name, program in ENGINES.items():
        _print(f"  {name}, extraction alone", path, *measure([python, "-c", program, str(path)]))
    piece = path.with_name("piece")
    with path.open("rb") as file:
        lines = file.read(PIECE).splitlines(keepends=True)[:-1]
    # It reads -tt only: the same lines with a time of the day.
    piece.write_bytes(b"".join(re.sub(rb" \d{10}(\.\d{6}) ", rb" 12:00:00\1 ", line, count=1) for line in lines))
    _print("  stracetools, parsing alone", piece, *measure([python, "-c", STRACETOOLS, str(piece)]))


def _print(name: str, path: Path, cpu_s: float, peak_mib: float) -> None:
    size = path.stat().st_size / 1e6
    print(f"{name:34} {size:6.1f} {cpu_s:7.1f} {size / cpu_s:7.1f} {peak_mib:9.0f}", flush=True)


if __name__ == "__main__":
    main()
