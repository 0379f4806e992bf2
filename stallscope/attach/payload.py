"""What arrives in the target: the agent, compiled for the target's own interpreter, and the line that starts it.

Compiling is pause: 60 KB of source cost the target some 40 ms. So the target's own program compiles
it beforehand, in a process of ours; where that fails (an embedded interpreter) the source goes.
"""

from __future__ import annotations

import ast
import marshal
import os
import re
import subprocess
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from stallscope import agent
from stallscope.attach.facts import Facts

_NAME = "_stallscope_agent"
_BOARDING = "boarding"
_PYTHON = re.compile(r"python[0-9.]*[dt]*")
_LIMIT_S = 20
_COMPILER = Path(__file__).with_name("compiler.py")


def payload_for(facts: Facts) -> bytes:
    """Marshalled {module name: (path, code)}; with texts for codes where the target's program compiles nothing."""
    sources = marshal.dumps(_sources(), 2)  # the format that every version reads
    name = os.readlink(f"/proc/{facts.pid}/exe").removesuffix(" (deleted)")
    if not _PYTHON.fullmatch(os.path.basename(name)):  # a server with Python inside: to run it could do anything
        return sources
    other_user = {"user": facts.uid, "group": facts.gid, "extra_groups": []} if facts.uid != os.geteuid() else {}
    try:
        compiled = subprocess.run(  # never with more rights than the target has: its program is not ours
            [name, "-I", "-S", "-c", _COMPILER.read_text()],
            executable=f"/proc/{facts.pid}/exe", input=sources, capture_output=True, timeout=_LIMIT_S, cwd="/",
            **other_user,  # type: ignore[call-overload]
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return sources
    output: bytes = compiled.stdout
    return output[4:] if compiled.returncode == 0 and output.startswith(b"done") else sources


def line_for(payload: Path, config: Mapping[str, object], answer_to: Path) -> bytes:
    """The source that the target runs: leaves no name in ``__main__``, and lets no exception out."""
    run = (
        f"(lambda p, n: (exec(p[{_BOARDING!r}][1], n), n['board']({dict(config)!r}, p, {str(answer_to)!r})))"
        "(__import__('marshal').loads(f), {'__name__': '_stallscope_boarding'})"
    )
    read = "(lambda f: (f.read(), f.close())[0])"
    return f"try:\n (lambda f: {run})({read}(open({str(payload)!r}, 'rb')))\nexcept BaseException:\n pass\n".encode()


def _sources() -> dict[str, tuple[str, str]]:
    """(path, text) by module name, the package first, and each module after those that it imports."""
    directory = Path(agent.__file__).parent
    texts = {path.stem: path.read_text() for path in sorted(directory.glob("*.py"))}
    found = {_BOARDING: (str(directory / "boot" / "boarding.py"), (directory / "boot" / "boarding.py").read_text())}
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
