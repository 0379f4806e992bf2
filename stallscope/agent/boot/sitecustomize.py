"""Brings the agent aboard as the interpreter starts; ``stallscope run`` puts us on PYTHONPATH.

Whatever else is called ``sitecustomize`` runs after us, exactly as it would without us: found,
absent, or broken. The settings are one line: ``threshold_ns=…;socket=…;owner=…;follow=…;path=…``.
"""

import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader

_BOOT = os.path.dirname(os.path.abspath(__file__))
_NAME = "_stallscope_agent"


def _settings() -> "dict[str, str]":
    return dict(item.split("=", 1) for item in os.environ.get("STALLSCOPE_RUN", "").split(";") if "=" in item)


def _leave_no_trace(settings: "dict[str, str]") -> None:
    """The program sees the ``sys.path`` of an ordinary start; children need the environment."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _BOOT]
    if settings.get("follow") == "0":
        os.environ.pop("STALLSCOPE_RUN", None)
        rest = os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]
        if rest:
            os.environ["PYTHONPATH"] = os.pathsep.join(rest)
        else:
            os.environ.pop("PYTHONPATH", None)


def _come_aboard(settings: "dict[str, str]") -> None:
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
            }
        )
    finally:
        sys.dont_write_bytecode = writes_no_bytecode


_found = _settings()
_leave_no_trace(_found)
if _found and (_found["follow"] == "1" or _found["owner"] == str(os.getppid())):
    try:
        _come_aboard(_found)
    except Exception:  # never the program's problem: the collector sees that nobody came aboard
        sys.modules.pop(_NAME, None)

sys.modules.pop("sitecustomize", None)
import sitecustomize  # type: ignore[import-not-found]  # noqa: E402, F401 (absent: the ImportError that site expects; broken: its own error)
