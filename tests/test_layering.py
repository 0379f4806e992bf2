"""Dependencies point one way (DESIGN.md, "Data flow"); the agent imports the standard library only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "stallscope"

# What each room may import of ours, besides itself, the errors, and the agent's layout (a description, no code).
ALLOWED = {
    "agent": set(),
    "pulse": set(),
    "recording": set(),
    "collect": {"agent", "pulse", "recording"},
    "attach": {"agent", "collect", "pulse", "recording"},
    "ingest": {"recording"},
    "analysis": {"recording"},
    "gate": {"analysis", "recording"},
    "report": {"analysis", "gate", "recording"},
    "testing": {"agent", "analysis", "cli", "collect", "gate", "pulse", "recording", "report"},
    "cli": {"analysis", "attach", "collect", "gate", "ingest", "pulse", "recording", "report"},
}


def _imports(path: Path) -> Iterator[str]:
    """Absolute names of all that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    shared = ("stallscope.agent.layout", "stallscope.errors", "stallscope.__version__")
    ours = {name for name in _imports(path) if name.startswith("stallscope.") and not name.startswith(shared)}
    assert {name.split(".")[1] for name in ours} - {room} <= ALLOWED[room]


@pytest.mark.parametrize("path", sorted((ROOT / "agent").rglob("*.py")), ids=lambda path: path.name)
def test_the_agent_stands_alone(path: Path) -> None:
    names = {name.split(".")[0] for name in _imports(path)}
    assert names <= set(sys.stdlib_module_names) | {"sitecustomize"}
    assert "stallscope" not in names


@pytest.mark.parametrize("room", ["analysis", "gate"])
def test_analysis_and_gate_are_pure(room: str) -> None:
    impure = {"os", "io", "sqlite3", "subprocess", "socket", "pathlib", "rich", "typer", "time", "random"}
    for path in sorted((ROOT / room).glob("*.py")):
        names = {name for name in _imports(path) if not name.startswith("os.path.")}
        found = {name.split(".")[0] for name in names} & impure
        assert not found, f"{path.name} imports {found}"
