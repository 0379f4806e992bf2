"""The machine code is what its listing says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stallscope.attach import trampoline


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("objcopy")), reason="there is no assembler here")
def test_the_bytes_are_those_of_the_listing(tmp_path: Path) -> None:
    lines = [line.partition(";")[2] for line in trampoline._LISTING.splitlines()]
    (tmp_path / "code.s").write_text("\n".join([".intel_syntax noprefix", *lines]) + "\n")
    subprocess.run(["as", "--64", "-o", "code.o", "code.s"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "code.o", "code"], cwd=tmp_path, check=True)
    assert (tmp_path / "code").read_bytes() == trampoline.CODE


def test_the_frame_lies_below_the_red_zone_and_ends_at_the_old_stack_pointer() -> None:
    names = [*trampoline.FUNCTIONS, "__errno_location"]
    made = trampoline.Trampoline(0x1000, 0x2000, dict.fromkeys(names, 0x3000), b"pass")
    registers = dict.fromkeys([*trampoline._SAVED, "rsp", "rip", "eflags", "orig_rax"], 7)
    registers["rsp"] = 0x7FFF0008
    turn = made.turn(registers, dict(registers, rip=0x4242), 4096, queue=False, page=0)
    assert turn.stack_at + len(turn.stack) == registers["rsp"] - 128
    assert turn.stack[-8:] == (0x4242).to_bytes(8, "little")
    assert turn.registers["rsp"] % 16 == 0
    assert turn.registers["rsp"] < turn.stack_at
    assert turn.registers["rip"] == 0x1000


def test_a_source_longer_than_its_page_is_refused() -> None:
    with pytest.raises(ValueError, match="more than the page"):
        trampoline.Trampoline(0, 0, {}, b"x" * 4096)
