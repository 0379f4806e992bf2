"""The machine code is what its listing says, and what it is given is laid out as it expects."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stallscope.attach import aarch64, machine, x86_64
from stallscope.attach.aarch64 import Aarch64
from stallscope.attach.machine import FUNCTIONS, Machine, Places, Stopped
from stallscope.attach.x86_64 import X8664

PLACES = Places(0x1000, 0x2000, dict.fromkeys([*FUNCTIONS, "__errno_location"], 0x3000), b"pass\0")
SVC, NOP = bytes.fromhex("010000d4"), bytes.fromhex("1f2003d5")


def assembled(prefix: str, options: tuple[str, ...], lines: list[str], directory: Path) -> bytes:
    """What the assembler makes of the lines."""
    for tool in ("as", "objcopy"):
        if not shutil.which(prefix + tool):
            pytest.skip(f"there is no {prefix}{tool} (Debian: binutils, binutils-aarch64-linux-gnu)")
    (directory / "code.s").write_text("\n".join(lines) + "\n")
    subprocess.run([prefix + "as", *options, "-o", "code.o", "code.s"], cwd=directory, check=True)
    subprocess.run([prefix + "objcopy", "-O", "binary", "-j", ".text", "code.o", "code"], cwd=directory, check=True)
    return (directory / "code").read_bytes()


def listed(text: str) -> list[str]:
    return [line.partition(";")[2] for line in text.splitlines()]


def test_the_bytes_for_x86_64_are_those_of_the_listing(tmp_path: Path) -> None:
    lines = [".intel_syntax noprefix", *listed(x86_64._LISTING)]
    assert assembled("", ("--64",), lines, tmp_path) == X8664.code


def test_the_bytes_for_aarch64_are_those_of_the_listing(tmp_path: Path) -> None:
    assert assembled("aarch64-linux-gnu-", (), listed(aarch64._LISTING), tmp_path) == Aarch64.code
    assert len(Aarch64.code) == 4 * sum(not line.endswith(":") for line in filter(None, listed(aarch64._LISTING)))


@pytest.mark.parametrize("cpu", [X8664(), Aarch64()], ids=["x86_64", "aarch64"])
def test_what_is_written_lies_within_the_room_below_the_stack_pointer(cpu: Machine) -> None:
    registers = dict.fromkeys(cpu.fields, 7) | {cpu.sp: 0x7FFF0008}
    stopped = Stopped(registers, bytes(4096), bytes(8))
    turn = cpu.turn(PLACES, stopped, dict(registers), queue=False, page=0)
    assert turn.stack_at + len(turn.stack) <= registers[cpu.sp]
    assert turn.registers[cpu.sp] % 16 == 0
    assert registers[cpu.sp] - cpu.room(PLACES, 4096) + 8192 <= turn.registers[cpu.sp] < turn.stack_at
    assert turn.registers[cpu.pc] == PLACES.code_at
    assert b"pass\0" in turn.stack


def test_the_frame_of_x86_64_ends_below_the_red_zone() -> None:
    registers = dict.fromkeys(X8664.fields, 7) | {"rsp": 0x7FFF0008}
    turn = X8664().turn(
        PLACES, Stopped(registers, bytes(4096), bytes(8)), registers | {"rip": 0x4242}, queue=False, page=0
    )
    assert turn.stack_at + len(turn.stack) == registers["rsp"] - 128
    assert turn.stack[-8:] == (0x4242).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("result", "expected"),
    [(-512, (0, 98)), (-513, (0, 98)), (-516, (219, 98)), (-4, (-4, 100)), (5, (5, 100))],
)
def test_a_call_that_was_cut_short_is_made_again_on_x86_64(result: int, expected: tuple[int, int]) -> None:
    now = dict.fromkeys(X8664.fields, 0) | {"rax": machine.unsigned(result), "rip": 100, "orig_rax": 0}
    after = X8664().resume(now, 0)
    assert (machine.negative(after["rax"]), after["rip"]) == expected


def test_a_thread_outside_of_calls_is_left_as_it_is() -> None:
    now = dict.fromkeys(X8664.fields, 0) | {"orig_rax": machine.unsigned(-1), "rax": machine.unsigned(-512)}
    assert X8664().call_of(now, lambda at, size: b"") is None
    assert X8664().resume(now, None) == now
    assert X8664().interrupted(now, lambda at, size: b"") is None


@pytest.mark.parametrize(
    ("code", "call", "interrupted"),
    [(NOP + SVC, 98, 104), (SVC + NOP, 98, None), (NOP + NOP, None, None)],
    ids=["to be made again", "has returned", "in the program"],
)
def test_the_code_at_the_counter_tells_the_call_on_aarch64(
    code: bytes, call: int | None, interrupted: int | None
) -> None:
    now = dict.fromkeys(Aarch64.fields, 0) | {"x8": 98, "pc": 100}
    asked: list[tuple[int, int]] = []

    def read(at: int, size: int) -> bytes:
        asked.append((at, size))
        return code[at - 96 :][:size]

    assert Aarch64().call_of(now, read) == call
    after = Aarch64().interrupted(now, read)
    assert (after and after["pc"]) == interrupted
    assert after is None or machine.negative(after["x0"]) == -4
    assert asked[0] == (96, 8)
