"""The code for aarch64, run by an emulator: what is turned aside comes back with every register as it was.

qemu emulates no ptrace, so a small program of ours sets the registers that the injector would set; everything after
that is the real code, the real block and the real frame.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from stallscope.attach.aarch64 import Aarch64
from stallscope.attach.machine import DONE, FUNCTIONS, HELD, QUEUED, RECORD, Places, Registers, Stopped

TOOLS = ("aarch64-linux-gnu-as", "aarch64-linux-gnu-ld", "aarch64-linux-gnu-nm", "qemu-aarch64-static")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="needs binutils-aarch64-linux-gnu and qemu-user-static (Debian)"
)
STACK, STACK_BYTES, CODE = 0x700000, 0x20000, 0x500000
NZCV = 0x60000000
SOURCE = b"print(42)\0"
VECTORS = bytes(range(256)) * 2
WRITE = "mov x0, #1\n mov x8, #64\n svc #0\n"
SPOIL = "".join(f" movi v{n}.2d, #0\n" for n in range(32)) + "".join(f" mov x{n}, #-1\n" for n in range(1, 18))

# What stands in for the interpreter's functions, and what looks at the registers when all is over.
PROGRAM = f"""
.globl _start
_start:
 ldr x16, =vectors
{"".join(f" ldp q{n}, q{n + 1}, [x16], #32{chr(10)}" for n in range(0, 32, 2))}
 ldr x16, =registers
 ldr x17, [x16, #248]
 mov sp, x17
{"".join(f" ldr x{n}, [x16, #{8 * n}]{chr(10)}" for n in range(31) if n != 16)}
 ldr x16, ={CODE}
 br x16
Py_IsInitialized:
 mov w0, #1
 ret
Py_IsFinalizing:
 mov w0, #0
 ret
PyGILState_Check:
 ldr x9, =held
 ldr w0, [x9]
 ret
PyGILState_Ensure:
{SPOIL}
 mov w0, #7
 ret
PyRun_SimpleString:
 mov x1, x0
run:
 mov x2, #0
1: ldrb w3, [x1, x2]
 cbz w3, 2f
 add x2, x2, #1
 b 1b
2: {WRITE}
{SPOIL}
 mov w0, #0
 ret
PyGILState_Release:
 ret
Py_AddPendingCall:
 b run
__errno_location:
 ldr x0, =errno
 ret
after:
{"".join(f" stp x{2 * n}, x{2 * n + 1}, [sp, #{16 * n - 512}]{chr(10)}" for n in range(15))}
 stp x30, xzr, [sp, #-272]
 mov x9, sp
 mrs x10, nzcv
 stp x9, x10, [sp, #-256]
 ldr x11, =dump
{"".join(f" stp q{n}, q{n + 1}, [x11], #32{chr(10)}" for n in range(0, 32, 2))}
 sub x1, sp, #512
 mov x2, #272
 {WRITE}
 ldr x1, =dump
 mov x2, #512
 {WRITE}
 ldr x1, =record
 mov x2, #36
 {WRITE}
 mov x0, #0
 mov x8, #93
 svc #0
.data
.balign 16
vectors: .incbin "vectors"
dump: .skip 512
record: .skip 32
errno: .word 11
held: .word HELD
.balign 16
registers: .incbin "registers"
.section .blob, "ax"
.incbin "blob"
.section .aside, "aw"
.incbin "aside"
"""


def build(directory: Path, held: int, aside: bytes, registers: bytes) -> dict[str, int]:
    """Assemble and link the program; the addresses of its names."""
    for name, data in (("vectors", VECTORS), ("blob", Aarch64.code), ("aside", aside), ("registers", registers)):
        (directory / name).write_bytes(data)
    (directory / "program.s").write_text(PROGRAM.replace("HELD", str(held)))
    subprocess.run(["aarch64-linux-gnu-as", "-o", "program.o", "program.s"], cwd=directory, check=True)
    places = [f"--section-start=.blob={CODE:#x}", f"--section-start=.aside={STACK:#x}"]
    subprocess.run(["aarch64-linux-gnu-ld", *places, "-o", "program", "program.o"], cwd=directory, check=True)
    table = subprocess.run(
        ["aarch64-linux-gnu-nm", "program"], cwd=directory, check=True, capture_output=True, text=True
    )
    return {name: int(at, 16) for at, _, name in map(str.split, table.stdout.splitlines())}


def turned_aside(directory: Path, *, held: int, queue: bool) -> tuple[bytes, bytes]:
    """Run it; its output, and how it shows the registers that are to come back."""
    names = build(directory, held, bytes(STACK_BYTES), bytes(256))
    now: Registers = {f"x{n}": 0x1111_0000_0000_0000 + n for n in range(31)}
    now |= {"sp": STACK + STACK_BYTES - 0x1000, "pc": names["after"], "pstate": NZCV}
    functions = {name: names[name] for name in (*FUNCTIONS, "__errno_location")}
    places = Places(CODE, names["record"], functions, SOURCE)
    floating = VECTORS + bytes(16)
    turn = Aarch64().turn(places, Stopped(now, floating, bytes(8)), now, queue=queue, page=0)
    aside = bytes(turn.stack_at - STACK) + turn.stack
    given = struct.pack("<32Q", *(turn.registers[f"x{n}"] for n in range(31)), turn.registers["sp"])
    assert build(directory, held, aside.ljust(STACK_BYTES, b"\0"), given) == names
    done = subprocess.run(["qemu-aarch64-static", "./program"], cwd=directory, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = struct.pack("<34Q", *(now[f"x{n}"] for n in range(31)), 0, now["sp"], NZCV)
    return done.stdout, shown


@pytest.mark.parametrize(
    ("held", "queue", "status", "printed"),
    [(0, False, DONE, SOURCE[:-1]), (1, False, HELD, b""), (0, True, QUEUED, SOURCE[:-1])],
    ids=["runs", "the lock is held here", "queued"],
)
def test_every_register_comes_back(held: int, queue: bool, status: int, printed: bytes, tmp_path: Path) -> None:
    output, shown = turned_aside(tmp_path, held=held, queue=queue)
    assert output.startswith(printed)
    rest = output[len(printed) :]
    assert rest[: len(shown)] == shown
    assert rest[len(shown) :][:512] == VECTORS
    said, page, seconds, _ = RECORD.unpack_from(rest, len(shown) + 512)
    assert said == status
    assert bool(page) is queue
    assert seconds > 0
    errno = struct.unpack_from("<I", rest, len(shown) + 512 + RECORD.size)[0]
    assert errno == 11
