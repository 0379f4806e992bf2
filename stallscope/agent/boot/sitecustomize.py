"""Brings the agent aboard as the interpreter starts; ``stallscope run`` puts us on PYTHONPATH.

Whatever else is called ``sitecustomize`` runs after us, exactly as it would without us: found,
absent, or broken. The settings are one line: ``threshold_ns=N;socket=PATH;owner=PID;follow=0``.

Every Python that the program starts reads this file, so it is valid for those too on which the
agent does not run: ASCII, no annotations, and no import at the top that Python 2.7 lacks.
"""

import os
import sys

_BOOT = os.path.dirname(os.path.abspath(__file__))
_NAME = "_stallscope_agent"
_OLDEST = (3, 8)


def _settings():
    # type: () -> dict[str, str]
    return dict(item.split("=", 1) for item in os.environ.get("STALLSCOPE_RUN", "").split(";") if "=" in item)


def _leave_no_trace(settings):
    # type: (dict[str, str]) -> None
    """The program sees the ``sys.path`` of an ordinary start; children need the environment."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _BOOT]
    sys.path_importer_cache.pop(_BOOT, None)
    if settings.get("follow") == "0":
        os.environ.pop("STALLSCOPE_RUN", None)
        rest = os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]
        if rest:
            os.environ["PYTHONPATH"] = os.pathsep.join(rest)
        else:
            os.environ.pop("PYTHONPATH", None)


def _come_aboard(settings):
    # type: (dict[str, str]) -> None
    from importlib.machinery import ModuleSpec, SourceFileLoader

    directory = os.path.dirname(_BOOT)
    path = os.path.join(directory, "__init__.py")
    spec = ModuleSpec(_NAME, SourceFileLoader(_NAME, path), origin=path, is_package=True)
    spec.submodule_search_locations = [directory]
    writes_no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the agent never writes to disk
    try:
        module = sys.modules[_NAME] = type(sys)(_NAME)
        module.__spec__, module.__path__, module.__file__ = spec, [directory], path
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        module.start(
            {
                "threshold_ns": int(settings["threshold_ns"]),
                "socket": settings["socket"],
                "owner_pid": int(settings["owner"]),
                "follow": settings["follow"] == "1",
                "pulse": settings.get("pulse"),
            }
        )
    finally:
        sys.dont_write_bytecode = writes_no_bytecode


_found = _settings()
_leave_no_trace(_found)
if _found and sys.version_info >= _OLDEST and (_found["follow"] == "1" or _found["owner"] == str(os.getppid())):
    try:
        _come_aboard(_found)
    except Exception:  # never the program's problem: the collector sees that nobody came aboard
        sys.modules.pop(_NAME, None)

_self = sys.modules.pop("sitecustomize", None)  # held: Python 2 empties a module that nobody refers to
import sitecustomize  # type: ignore[import-not-found]  # noqa: E402, F401 (absent: the ImportError that site expects; broken: its own error)
