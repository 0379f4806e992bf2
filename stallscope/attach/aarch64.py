"""aarch64: its registers and calls, and the machine code that the stopped thread is turned aside to.

As on x86-64 (``x86_64`` says why it lies where it lies), but for the end: no instruction sets every register and the
program counter at once, so the way back is ``rt_sigreturn`` with a frame that was filled from outside. It brings
back the general registers, the flags, the vector registers and the signal mask.

At the stop the kernel has forgotten the call's number already, and where it will make the call again it has gone
back to the ``svc`` itself (arch/arm64/kernel/signal.c, ``do_signal``); so the code at the counter tells.
"""

from __future__ import annotations

from struct import Struct

from stallscope.attach.machine import FUNCTIONS, SOURCE_PAGE, Machine, Places, Read, Registers, Stopped, Turn, unsigned

_FIELDS = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")  # struct user_pt_regs, <asm/ptrace.h>
_FLOATING = 2  # NT_PRFPREG: 32 vector registers of 16 bytes, fpsr, fpcr, <linux/elf.h>
_SVE = 0x405  # NT_ARM_SVE
_SVC = bytes.fromhex("010000d4")
_CALLS = 600  # no number is higher: a greater x8 belongs to no call
_EINTR = 4
_BRANCH_TYPE = (
    0xC00  # PSTATE.BTYPE: what follows an indirect branch; it would forbid to go on anywhere but at a landing
)
_BLOCK = Struct("<7Q 8Q")
_VECTORS = 512

# struct rt_sigframe, arch/arm64/kernel/signal.c, and <asm/sigcontext.h>: siginfo (128 bytes), then ucontext: flags,
# link, stack (24), mask (8, in room for 128), padding up to 16; sigcontext: fault address, x0-x30, sp, pc, pstate,
# padding up to 16, and the records: FPSIMD (magic, size, fpsr, fpcr, vectors), and an empty one at the end.
_SIGINFO = 128
_MASK_AT = _SIGINFO + 40
_CONTEXT_AT = _SIGINFO + 176
_GENERAL = Struct("<35Q")
_RECORDS_AT = _CONTEXT_AT + 288
_FPSIMD = Struct("<2I 2I")
_FPSIMD_MAGIC, _FPSIMD_BYTES = 0x46508001, 528
_FRAME_BYTES = _RECORDS_AT + 4096

# x19 points to the block: 0-48 the functions, 56 whether to queue, 64 the record, 72 the source, 80 its length,
# 88 the page for a queued source (0: make one), 96 the page's length, 104 the frame, 112 __errno_location.
_LISTING = """
          ; stub:
742240f9  ; ldr x20, [x19, #64]
693a40f9  ; ldr x9, [x19, #112]
20013fd6  ; blr x9
f50300aa  ; mov x21, x0
160040b9  ; ldr w22, [x0]
570080d2  ; mov x23, #2
690240f9  ; ldr x9, [x19]
20013fd6  ; blr x9
40060034  ; cbz w0, leave
690640f9  ; ldr x9, [x19, #8]
20013fd6  ; blr x9
e0050035  ; cbnz w0, leave
691e40f9  ; ldr x9, [x19, #56]
090200b5  ; cbnz x9, pending
770080d2  ; mov x23, #3
690a40f9  ; ldr x9, [x19, #16]
20013fd6  ; blr x9
20050035  ; cbnz w0, leave
690e40f9  ; ldr x9, [x19, #24]
20013fd6  ; blr x9
f803002a  ; mov w24, w0
602640f9  ; ldr x0, [x19, #72]
691240f9  ; ldr x9, [x19, #32]
20013fd6  ; blr x9
e003182a  ; mov w0, w24
691640f9  ; ldr x9, [x19, #40]
20013fd6  ; blr x9
370080d2  ; mov x23, #1
1e000014  ; b leave
          ; pending:
782e40f9  ; ldr x24, [x19, #88]
d80100b5  ; cbnz x24, copy
000080d2  ; mov x0, #0
613240f9  ; ldr x1, [x19, #96]
620080d2  ; mov x2, #3
430480d2  ; mov x3, #0x22
04008092  ; mov x4, #-1
050080d2  ; mov x5, #0
c81b80d2  ; mov x8, #222
010000d4  ; svc #0
970080d2  ; mov x23, #4
1ffc3fb1  ; cmn x0, #4095
22020054  ; b.hs leave
f80300aa  ; mov x24, x0
800600f9  ; str x0, [x20, #8]
          ; copy:
e00318aa  ; mov x0, x24
612640f9  ; ldr x1, [x19, #72]
622a40f9  ; ldr x2, [x19, #80]
          ; next:
23144038  ; ldrb w3, [x1], #1
03140038  ; strb w3, [x0], #1
420400f1  ; subs x2, x2, #1
a1ffff54  ; b.ne next
601240f9  ; ldr x0, [x19, #32]
e10318aa  ; mov x1, x24
691a40f9  ; ldr x9, [x19, #48]
20013fd6  ; blr x9
b70080d2  ; mov x23, #5
40000034  ; cbz w0, leave
d70080d2  ; mov x23, #6
          ; leave:
b60200b9  ; str w22, [x21]
200080d2  ; mov x0, #1
81420091  ; add x1, x20, #16
280e80d2  ; mov x8, #113
010000d4  ; svc #0
970200f9  ; str x23, [x20]
693640f9  ; ldr x9, [x19, #104]
3f010091  ; mov sp, x9
681180d2  ; mov x8, #139
010000d4  ; svc #0
"""


class Aarch64(Machine):
    """64-bit ARM as Linux has it; calls: <asm-generic/unistd.h>."""

    fields = _FIELDS
    pc, sp, extended, wide, futex = "pc", "sp", _FLOATING, _SVE, 98
    not_here = frozenset({98, 214, 215, 216, 222, 226, 233, 449})  # futex brk munmap mremap mmap mprotect madvise waitv
    leaving = frozenset({93, 94, 139, 220, 221, 281, 435})  # exit exit_group rt_sigreturn clone execve execveat clone3
    code = bytes.fromhex("".join(line.partition(";")[0] for line in _LISTING.splitlines()))

    def call_of(self, now: Registers, read: Read) -> int | None:
        """x8, if an ``svc`` lies at the counter (it will be made again) or just before it (it has returned)."""
        around = read(now["pc"] - 4, 8)
        return now["x8"] if _SVC in (around[:4], around[4:]) and now["x8"] < _CALLS else None

    def targets(self, at: int, code: bytes) -> set[int]:
        """By ``b`` and ``bl``, whose low 26 bits count instructions."""
        words = [int.from_bytes(code[n : n + 4], "little") for n in range(0, len(code) - 3, 4)]
        jumps = [(n, word & 0x3FFFFFF) for n, word in enumerate(words) if word & 0x7C000000 == 0x14000000]
        return {at + 4 * (n + (far - (1 << 26) if far >> 25 else far)) for n, far in jumps}

    def resume(self, now: Registers, call: int | None) -> Registers:
        """As it is: the kernel has gone back already. A sleep of a relative time then begins anew."""
        return now

    def interrupted(self, now: Registers, read: Read) -> Registers | None:
        """Past the ``svc`` that would be made again."""
        if self.call_of(now, read) is None or read(now["pc"], 4) != _SVC:
            return None
        return dict(now, pc=now["pc"] + 4, x0=unsigned(-_EINTR))

    def room(self, places: Places, extended_bytes: int) -> int:
        """The frame is larger than what it keeps: the kernel copies it in whole."""
        return super().room(places, extended_bytes) + _FRAME_BYTES

    def turn(self, places: Places, stopped: Stopped, resume: Registers, *, queue: bool, page: int) -> Turn:
        """Below the stack pointer the frame, below that the source, then the block."""
        now = stopped.registers
        frame_at = now["sp"] - _FRAME_BYTES & -16
        source_at = frame_at - len(places.source) & -16
        block_at = source_at - _BLOCK.size & -16
        block = _BLOCK.pack(
            *(places.functions[name] for name in FUNCTIONS),
            queue, places.record_at, source_at, len(places.source), page, SOURCE_PAGE, frame_at,
            places.functions["__errno_location"],
        )  # fmt: skip
        stack = bytearray(frame_at + _FRAME_BYTES - block_at)
        for at, part in (
            (block_at, block),
            (source_at, places.source),
            (frame_at + _MASK_AT, stopped.mask),
            (frame_at + _CONTEXT_AT, _GENERAL.pack(0, *(resume[name] for name in _FIELDS))),
            (frame_at + _RECORDS_AT, _vectors(stopped.extended)),
        ):
            stack[at - block_at : at - block_at + len(part)] = part
        pstate = now["pstate"] & ~_BRANCH_TYPE
        aside = dict(now, x19=block_at, sp=block_at - 256 & -16, pc=places.code_at, pstate=pstate)
        return Turn(block_at, bytes(stack), aside)


def _vectors(state: bytes) -> bytes:
    """The FPSIMD record, of the set that ptrace gives: vectors, fpsr, fpcr."""
    status, control = Struct("<2I").unpack_from(state.ljust(_VECTORS + 8, b"\0"), _VECTORS)
    return _FPSIMD.pack(_FPSIMD_MAGIC, _FPSIMD_BYTES, status, control) + state[:_VECTORS].ljust(_VECTORS, b"\0")
