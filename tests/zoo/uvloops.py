"""uvloop for interpreters that have not got it: a wheel of PyPI's, in a folder of the cache, one for each version."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stallscope" / "uvloop"


@functools.cache
def folder(python: str) -> Path | str:
    """What PYTHONPATH has to hold so that ``python`` imports uvloop; or, as text, why there is none for it."""
    version = _asked(python, "import sys; print('%d.%d' % sys.version_info[:2] + sys.abiflags)")
    target = _CACHE / f"{version}-{platform.machine()}"
    reason = "" if (target / "uvloop").is_dir() else _installed(version, target)
    if reason:
        return reason
    env = {**os.environ, "PYTHONPATH": str(target)}
    probe = subprocess.run([python, "-c", "import uvloop"], env=env, capture_output=True, text=True)
    return f"uvloop does not start here: {_last_line(probe.stderr)}" if probe.returncode else target


def _asked(python: str, program: str) -> str:
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def _installed(version: str, target: Path) -> str:
    """Installs it, whole or not at all; returns why it could not, or nothing."""
    staging = target.with_name(f"{target.name}-{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version, "--target", str(staging)]
    done = subprocess.run([*pip, "uvloop"], capture_output=True, text=True)
    if done.returncode:
        return f"no wheel of uvloop can be installed for CPython {version}: {_last_line(done.stderr)}"
    try:
        staging.rename(target)
    except OSError:  # somebody else was faster
        if not target.is_dir():
            raise
    return ""


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "no reason was given"
