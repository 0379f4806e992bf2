"""Many attach-detach cycles over versions and kinds of targets, some with the injector killed at a random moment.

Usage: python -m tests.zoo.attach_matrix [SECONDS] [SHARE_KILLED] [PYTHON]... (more interpreters, such as one that has
uvloop). Prints a table; exit code 1 after any death.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from stallscope.attach.facts import Facts
from stallscope.attach.payload import Modules, modules_for
from stallscope.errors import NotObservable
from tests.attach.target import KINDS
from tests.attach.targets import Client, Target, Usage, stay
from tests.interpreters import VERSIONS, find, name_of

_ALIVE_S = 0.03  # about as long as the injector lives
_WARM_UP = 2  # cycles before the first look at what the target uses: its own pages for our code are there then
_LEFT_S = 8.0
_DEBIAN = "/usr/bin/python3"


@dataclass
class Row:
    """What happened to one target."""

    name: str
    cycles: int = 0
    killed: int = 0
    refused: list[str] = field(default_factory=list)
    pauses_ms: list[float] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    """The same without the time for which a thread was ready and had no processor."""
    ended: str = ""
    grown: str = ""

    def __str__(self) -> str:
        pauses = sorted(self.pauses_ms) or [0.0]
        p99 = pauses[min(len(pauses) - 1, len(pauses) * 99 // 100)]
        own = statistics.median(self.own_ms or [0.0])
        return (
            f"{self.name:14} {self.cycles:6} cycles {self.killed:5} injectors killed {len(self.refused):4} refused  "
            f"pause {statistics.median(pauses):6.2f} ms median {p99:7.2f} p99 {pauses[-1]:7.2f} max, "
            f"{own:5.2f} with a processor  {self.grown}  {self.ended}"
        )


def cycle(target: Target, modules: Modules, path: Path, row: Row, kill: bool) -> None:
    """One stay, made by a process of its own so that it can end at any moment."""
    reading, writing = os.pipe()
    maker = os.fork()
    if maker == 0:
        os.close(reading)
        _make(target, modules, path, writing)
    os.close(writing)
    if kill and _kill_injector(maker):
        row.killed += 1
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(maker, 0)
    row.cycles += 1
    if said.startswith("pause"):
        row.pauses_ms.append(float(said.split()[1]))
        row.own_ms.append(float(said.split()[2]))
    elif not kill:
        row.refused.append(said)


def _make(target: Target, modules: Modules, path: Path, writing: int) -> None:
    said = "nothing"
    try:
        with stay(target, path, modules) as (_, boarded):
            said = f"pause {boarded.pause_ns / 1e6} {boarded.own_ns / 1e6}"
    except NotObservable as error:
        said = str(error)
    except BaseException as error:
        said = repr(error)
    finally:
        os.write(writing, said.encode())
        os._exit(0)


def _kill_injector(maker: int) -> bool:
    """SIGKILL the child that injects, at a random moment of its life; half of the time its parent with it."""
    children = Path(f"/proc/{maker}/task/{maker}/children")
    while True:
        try:
            found = children.read_text().split()
        except OSError:
            return False
        if found:
            break
        if Path(f"/proc/{maker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
    until = time.perf_counter() + random.random() ** 2 * _ALIVE_S
    while time.perf_counter() < until:
        pass
    try:
        os.kill(int(found[0]), signal.SIGKILL)
        if random.random() < 0.5:
            os.kill(maker, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def visit(executable: str, kind: str, row: Row, seconds: float, share_killed: float, path: Path) -> None:
    """Cycle over one target until the time is over, or it dies."""
    target = Target(executable, kind)
    client = Client(target.port) if target.port else None
    modules = modules_for(Facts(target.pid))
    for _ in range(_WARM_UP):
        cycle(target, modules, path, row, kill=False)
    before = target.usage()
    limit = time.monotonic() + seconds
    while not row.ended and time.monotonic() < limit:
        cycle(target, modules, path, row, random.random() < share_killed)
        if target.process.poll() is not None or (client is not None and client.wrong):
            row.ended = f"DIED ({target.process.poll()}) {client.wrong if client else ''}"
    if not row.ended:
        row.grown = _grown(target, before)
    if client is not None:
        client.end()
    row.ended += target.end()[-300:].strip()


def _grown(target: Target, before: Usage) -> str:
    """What it uses more than before, once what is on its way out has gone."""
    limit = time.monotonic() + _LEFT_S
    while (after := target.usage()).threads > before.threads and time.monotonic() < limit:
        time.sleep(0.05)
    return after.since(before)


def main(seconds: float, share_killed: float, more: list[str]) -> int:
    """Every version and kind in turn, one target at a time: others would take its processor."""
    pythons = [found for found in map(find, VERSIONS) if found is not None]
    targets = [(name_of(found.version), found.executable, kind) for found in pythons for kind in KINDS]
    targets += [(path, path, kind) for path in (_DEBIAN, *more) for kind in KINDS if os.path.exists(path)]
    targets = [one for one in targets if one[2] != "uvloop" or _has_uvloop(one[1])]
    with tempfile.TemporaryDirectory(prefix="attach-matrix-") as directory:
        return 1 if visit_all(targets, seconds, share_killed, Path(directory) / "x.stall") else 0


def _has_uvloop(executable: str) -> bool:
    return subprocess.run([executable, "-c", "import uvloop"], capture_output=True).returncode == 0


def visit_all(targets: list[tuple[str, str, str]], seconds: float, share_killed: float, path: Path) -> int:
    """Visit each, and print what happened; how many targets died."""
    total, deaths = Row("all"), 0
    for name, executable, kind in targets:
        row = Row(f"{name} {kind}")
        visit(executable, kind, row, seconds / len(targets), share_killed, path)
        print(row, flush=True)
        for reason in sorted(set(row.refused)):
            print(f"    {row.refused.count(reason)} x {reason}")
        total.cycles, total.killed = total.cycles + row.cycles, total.killed + row.killed
        total.refused, total.pauses_ms = total.refused + row.refused, total.pauses_ms + row.pauses_ms
        total.own_ms += row.own_ms
        deaths += bool(row.ended)
    print(f"{total} {deaths} deaths")
    return deaths


if __name__ == "__main__":
    sys.exit(
        main(float(sys.argv[1]) if sys.argv[1:] else 60.0, float(sys.argv[2]) if sys.argv[2:] else 0.3, sys.argv[3:])
    )
