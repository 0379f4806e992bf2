"""How the pulse's C test program is built, by which compilers, and how it is run.

Each toolchain builds the library from its sources, with all symbols visible so that C can drive it, the program
``native`` whose scenarios are in ``native/*.c``, and the plug-ins that it loads.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stallscope.pulse

SOURCES = Path(stallscope.pulse.__file__).parent
PROGRAM = Path(__file__).parent / "native"
SKIPPED = 77  # the program's exit code; it prints the reason
STRICT = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g")

SCENARIOS = [
    name for source in sorted(PROGRAM.glob("*.c")) for name in re.findall(r'^    \{"(\w+)",', source.read_text(), re.M)
]


@dataclass(frozen=True)
class Toolchain:
    """A C compiler with its flags, and what runs the programs that it makes."""

    name: str
    compiler: str
    flags: tuple[str, ...] = ("-O2",)
    runner: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()  # scenarios that the runner itself cannot stand

    def missing(self) -> str | None:
        """Why it cannot be used here; None: it can."""
        for program in (self.compiler, *self.runner[:1]):
            if shutil.which(program) is None:
                return f"no {program} here"
        return None

    def compile(self, *words: str | Path) -> None:
        """Run the compiler; an AssertionError has what it said."""
        command = [self.compiler, *STRICT, *self.flags, f"-I{SOURCES}", f"-I{PROGRAM}", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def run(
        self, program: Path, scenario: str, environment: Mapping[str, str] | None = None, timeout_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """One scenario in a process of its own, which is killed when it hangs (`subprocess.TimeoutExpired`)."""
        quiet = {"ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0"}  # a search for leaks needs descriptors
        command = [*self.runner, str(program), scenario]
        surroundings = os.environ | quiet | dict(environment or {})
        return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=timeout_s)


HARDENED = ("-O2", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fno-plt", "-Wl,-z,relro", "-Wl,-z,now")
SANITIZING = ("-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

TOOLCHAINS = (
    Toolchain("cc", "cc"),
    Toolchain("hardened", "cc", HARDENED),
    Toolchain("clang", "clang"),
    Toolchain("sanitized", "gcc", SANITIZING),
    Toolchain("musl", "musl-gcc"),
    Toolchain(
        "aarch64",
        "aarch64-linux-gnu-gcc",
        runner=("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"),
        # qemu reads a byte more of an address than there is; the kernel names its own system calls, not the program's
        beyond=("short_addresses", "blocking_again_unseen"),
    ),
)


def build(toolchain: Toolchain, folder: Path, extra: Sequence[str | Path] = ()) -> Path:
    """The program's path. ``extra`` are more words for the compiler of the program itself."""
    there = folder / "there"
    there.mkdir()
    shared = ("-fPIC", "-shared")
    library = folder / "libpulse_tested.so"
    toolchain.compile(*shared, "-Wl,-z,now", *sorted(SOURCES.glob("*.c")), "-o", library, "-pthread", "-ldl")
    found_by = ["-Wl,--enable-new-dtags", f"-Wl,-rpath,{folder}", f"-L{folder}", "-lpulse_tested", "-pthread", "-ldl"]
    parts = [PROGRAM / name for name in ("drive.c", "loops.c", "found.c", "flow.c", "objects.c", "hostile.c")]
    toolchain.compile(*parts, *extra, "-o", folder / "native", *found_by)
    for plug_in, source, flags in _PLUG_INS:
        found_by = ["-Wl,--enable-new-dtags", f"-Wl,-rpath,{there}", "-ldl"]
        toolchain.compile(*shared, *flags, PROGRAM / source, "-o", folder / plug_in, *found_by)
    return folder / "native"


_PLUG_INS = (
    ("plug_lazy.so", "plug.c", ("-Wl,-z,lazy", "-Wl,-z,norelro")),
    ("plug_now.so", "plug.c", ("-Wl,-z,now", "-Wl,-z,relro")),
    ("plug_relro.so", "plug.c", ("-Wl,-z,lazy", "-Wl,-z,relro")),
    ("libcrypto-plug.so.3", "plug.c", ("-Wl,-z,now",)),
    ("fortified.so", "fortified.c", ("-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2")),
    ("own_names.so", "own_names.c", ("-Wl,-z,lazy",)),
    ("preload.so", "preload.c", ()),
    ("there/only_there.so", "own_names.c", ()),
    ("there/loads_another.so", "loads_another.c", ()),
)
