"""Ten million iterations and a million calls in eight threads, under a sanitizer: ``python -m tests.pulse.load``.

The suite runs a 250th of it. ``--sanitizer thread`` looks for races instead: the pulse's watchdog reads some counters
of a loop's thread while that writes them, and says so by design, so its reports are for a person to read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.pulse.toolchains import SANITIZING, Toolchain, build

SMALL = 40_000  # iterations of the scenario as the suite runs it
FLAGS = {
    "address": SANITIZING,
    "thread": ("-O2", "-fsanitize=thread", "-fno-omit-frame-pointer"),
    "none": ("-O2",),
}


def main() -> int:
    """Exit code 0: no report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=10_000_000)
    parser.add_argument("--sanitizer", choices=FLAGS, default="address")
    parser.add_argument("--cc", default="gcc")
    wanted = parser.parse_args()
    toolchain = Toolchain("load", wanted.cc, FLAGS[wanted.sanitizer])
    with tempfile.TemporaryDirectory() as folder:
        program = build(toolchain, Path(folder))
        begun = time.monotonic()
        factor = str(max(1, wanted.iterations // SMALL))
        done = toolchain.run(program, "load", {"PULSE_LOAD": factor}, timeout_s=7200)
    print(done.stdout + done.stderr, end="")
    print(f"{'no report' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - begun:.1f} s")
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
