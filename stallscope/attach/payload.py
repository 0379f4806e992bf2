"""What arrives in the target: the agent, compiled for the target's own interpreter, and the text that starts it.

Compiling holds the program up: 60 KB of source are some 40 ms. So an interpreter of the target's version compiles it
beforehand, in a process of ours; where there is none (an embedded interpreter) the source goes.
"""

from __future__ import annotations

import ast
import marshal
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from stallscope import agent
from stallscope.attach.facts import Facts

Modules = dict[str, tuple[str, bytes | list[str]]]
"""(path, code) by module name, the package first, and each after those that it imports. The code is marshalled, or
the source of its statements, one by one, so that the target need not compile all of it in one go."""

_NAME = "_stallscope_agent"
_BOOTSTRAP, _BOARDING = "bootstrap", "boarding"
_PYTHON = re.compile(r"python[0-9.]*[dt]*")
_LIMIT_S = 20
_COMPILER = Path(__file__).with_name("compiler.py")
_BOOT = Path(agent.__file__).parent / "boot"


def modules_for(facts: Facts) -> Modules:
    """The agent's modules, ``bootstrap``, ``boarding``; sources for codes where nothing compiles for that version."""
    sources = _sources()
    texts: Modules = {name: (path, _statements(text)) for name, (path, text) in sources.items()}
    command, options = _interpreter(facts)
    if not command:
        return texts
    try:
        done = subprocess.run(
            [*command, "-I", "-S", "-c", _COMPILER.read_text()],
            input=marshal.dumps(sources, 2), capture_output=True, timeout=_LIMIT_S, cwd="/", **options,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return texts
    if done.returncode or not done.stdout.startswith(b"done"):
        return texts
    version, modules = marshal.loads(done.stdout[4:])
    return modules if facts.version in (None, version) else texts


def payload_of(modules: Modules, config: Mapping[str, object], pulse: bytes | None = None) -> bytes:
    """What fills the box. ``pulse``: the bytes of the library that is to come aboard with the agent."""
    package = {name: module for name, module in modules.items() if name.startswith(_NAME)}
    given = {_BOARDING: modules[_BOARDING], "agent": package, "config": dict(config), "pulse": pulse}
    return marshal.dumps(given, 2)  # the format that every version reads


def starter(name: str, modules: Modules) -> bytes:
    """The text that the main thread runs: it starts a thread with the bootstrap's code, leaves no name in ``__main__``,
    and lets no exception out.

    What it costs is the program's pause. What failed: to run the bootstrap's text here, which is compiled first (0.8 to
    1.3 ms, against 0.2), or to have the thread compile it (1.7 ms, in which the program cannot run either).
    """
    code = modules[_BOOTSTRAP][1]
    bootstrap = f"__import__('marshal').loads({code!r})" if isinstance(code, bytes) else repr("\n".join(code))
    running = "m and m._get_running_loop(), t.get_ident(), t.get_native_id()"
    space = f"{{'NAME': {name!r}, 'running': ({running})}}"
    start = f"(lambda t, m: t.start_new_thread(exec, ({bootstrap}, {space})))"
    given = "(__import__('_thread'), __import__('sys').modules.get('asyncio.events'))"
    return f"try:\n {start}{given}\nexcept BaseException:\n pass\n".encode()


def _interpreter(facts: Facts) -> tuple[list[str], dict[str, Any]]:
    """Command and options of an interpreter that compiles for the target; no command when there is none.

    The target's own program is run with no more rights than the target has, and never out of another container:
    what lies there is not to run out here.
    """
    own = os.readlink(f"/proc/{facts.pid}/exe").removesuffix(" (deleted)")
    if (facts.is_near() or _is_ours(own, facts)) and _PYTHON.fullmatch(os.path.basename(own)):
        # Not a server with Python inside: to run that could do anything.
        other = {"user": facts.uid, "group": facts.gid, "extra_groups": []} if facts.uid != os.geteuid() else {}
        return [own], {"executable": f"/proc/{facts.pid}/exe", "env": facts.library_path(), **other}
    if facts.version == sys.version_info[:2]:
        return [sys.executable], {}
    named = facts.version and shutil.which(f"python{facts.version[0]}.{facts.version[1]}")
    return ([named] if named else []), {}


def _is_ours(path: str, facts: Facts) -> bool:
    """Whether the target's program is the very file that we see under that path."""
    try:
        return os.path.samefile(path, f"/proc/{facts.pid}/exe")
    except OSError:
        return False


def _statements(text: str) -> list[str]:
    """The statements at the top of a module, each at its own line, ``from __future__`` left out."""
    lines = text.splitlines()
    found = []
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ImportFrom) or node.module != "__future__":
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            found.append("\n" * (first - 1) + "\n".join(lines[first - 1 : node.end_lineno]))
    return found


def _sources() -> dict[str, tuple[str, str]]:
    directory = _BOOT.parent
    texts = {path.stem: path.read_text() for path in sorted(directory.glob("*.py"))}
    found = {
        _BOOTSTRAP: ("", (_BOOT / "bootstrap.py").read_text()),  # its path would lengthen it
        _BOARDING: (str(_BOOT / "boarding.py"), (_BOOT / "boarding.py").read_text()),
    }
    package = texts.pop("__init__")
    found[_NAME] = (str(directory / "__init__.py"), package)
    for stem in TopologicalSorter({stem: _imported(text) for stem, text in texts.items()}).static_order():
        found[f"{_NAME}.{stem}"] = (str(directory / f"{stem}.py"), texts[stem])
    return found


def _imported(text: str) -> set[str]:
    """The sibling modules that a module imports at its top."""
    wanted: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            wanted |= {node.module} if node.module else {alias.name for alias in node.names}
    return wanted
