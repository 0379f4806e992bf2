"""Addresses and slack, checked against what the running interpreter itself says."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from stallscope.attach import elf


def own() -> tuple[elf.Module, list[elf.Mapped]]:
    maps = elf.mappings(os.getpid())
    module = elf.interpreter_of(os.getpid(), elf.modules(maps), "Py_IsInitialized")
    assert module is not None
    return module, maps


def test_a_function_is_where_it_is() -> None:
    names = ["Py_IsInitialized", "PyGILState_Ensure", "PyRun_SimpleString"]
    here = {name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in names}
    assert own()[0].addresses([*names, "no_such_function"]) == here


@pytest.mark.parametrize(("executable", "permissions"), [(True, "rx"), (False, "rw")])
def test_slack_is_mapped_and_less_than_a_page(executable: bool, permissions: str) -> None:
    module, maps = own()
    low, high = module.slack(executable=executable)
    assert high % elf.PAGE == 0
    assert high - low < elf.PAGE
    assert low == high or elf.is_mapped(maps, low, high, permissions)


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"#!/bin/sh\n" * 100)
    with pytest.raises(ValueError, match="no 64-bit ELF"):
        elf.Elf(str(path))
