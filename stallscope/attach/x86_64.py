"""x86-64: its registers and calls, and the machine code that the stopped thread is turned aside to.

The code saves every register, asks whether Python may run here, runs it (or queues it as a pending call),
puts everything back and returns to where the thread was. By then we have long let go.

It lies in the slack behind the code of a mapped file, where nothing ever runs and which needs no
system call in the target to make; writing there gives the process its own copy of that page. Its
block lies on the thread's own stack, below the red zone. What failed: a page got by stepping an
``mmap`` in the target: killed in the middle of that, the injector took the target with it.
"""

from __future__ import annotations

import re
from struct import Struct

from stallscope.attach.machine import FUNCTIONS, SOURCE_PAGE, Machine, Places, Read, Registers, Stopped, Turn, negative

_FIELDS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_XSTATE = 0x202
_RESTARTED = (-512, -513, -514)  # ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, <linux/errno.h>
_RESTART_BLOCK = -516
_RESTART_SYSCALL = 219
_EINTR = 4
_SAVED = ("rax", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rbx")
_BLOCK = Struct("<7Q 7Q 16Q Q")
_RED_ZONE = 128
_FRAME = Struct("<2Q")  # flags and address to return to
_TRAP_AND_DIRECTION = 0x500
_NO_CALL = (1 << 64) - 1

# rbx points to the block: 0-48 the functions, 56 whether to queue, 64 the record, 72 the source, 80 its length,
# 88 the page for a queued source (0: make one), 96 the page's length, 104 room for XSAVE, 112-224 the registers
# above, 232 the stack pointer to end with, 240 __errno_location.
_LISTING = """
                      ; stub:
b8ffffffff            ; mov eax, -1
baffffffff            ; mov edx, -1
488b4b68              ; mov rcx, [rbx+104]
480fae21              ; xsave64 [rcx]
4c8b6340              ; mov r12, [rbx+64]
ff93f0000000          ; call [rbx+240]
4889c5                ; mov rbp, rax
448b38                ; mov r15d, [rax]
41be02000000          ; mov r14d, 2
ff13                  ; call [rbx]
85c0                  ; test eax, eax
0f84a6000000          ; jz leave
ff5308                ; call [rbx+8]
85c0                  ; test eax, eax
0f859b000000          ; jnz leave
48837b3800            ; cmp qword ptr [rbx+56], 0
752c                  ; jne pending
41be03000000          ; mov r14d, 3
ff5310                ; call [rbx+16]
85c0                  ; test eax, eax
0f8583000000          ; jnz leave
ff5318                ; call [rbx+24]
4189c5                ; mov r13d, eax
488b7b48              ; mov rdi, [rbx+72]
ff5320                ; call [rbx+32]
4489ef                ; mov edi, r13d
ff5328                ; call [rbx+40]
41be01000000          ; mov r14d, 1
eb68                  ; jmp leave
                      ; pending:
4c8b6b58              ; mov r13, [rbx+88]
4d85ed                ; test r13, r13
7538                  ; jnz copy
b809000000            ; mov eax, 9
31ff                  ; xor edi, edi
488b7360              ; mov rsi, [rbx+96]
ba03000000            ; mov edx, 3
41ba22000000          ; mov r10d, 0x22
49c7c0ffffffff        ; mov r8, -1
4531c9                ; xor r9d, r9d
0f05                  ; syscall
41be04000000          ; mov r14d, 4
483d00f0ffff          ; cmp rax, -4096
772f                  ; ja leave
4989c5                ; mov r13, rax
4989442408            ; mov [r12+8], rax
                      ; copy:
4c89ef                ; mov rdi, r13
488b7348              ; mov rsi, [rbx+72]
488b4b50              ; mov rcx, [rbx+80]
f3a4                  ; rep movsb
488b7b20              ; mov rdi, [rbx+32]
4c89ee                ; mov rsi, r13
ff5330                ; call [rbx+48]
41be05000000          ; mov r14d, 5
85c0                  ; test eax, eax
7406                  ; jz leave
41be06000000          ; mov r14d, 6
                      ; leave:
44897d00              ; mov [rbp], r15d
b8e4000000            ; mov eax, 228
bf01000000            ; mov edi, 1
498d742410            ; lea rsi, [r12+16]
0f05                  ; syscall
4d893424              ; mov [r12], r14
b8ffffffff            ; mov eax, -1
baffffffff            ; mov edx, -1
488b4b68              ; mov rcx, [rbx+104]
480fae29              ; xrstor64 [rcx]
488b4370              ; mov rax, [rbx+112]
488b4b78              ; mov rcx, [rbx+120]
488b9380000000        ; mov rdx, [rbx+128]
488bb388000000        ; mov rsi, [rbx+136]
488bbb90000000        ; mov rdi, [rbx+144]
488bab98000000        ; mov rbp, [rbx+152]
4c8b83a0000000        ; mov r8, [rbx+160]
4c8b8ba8000000        ; mov r9, [rbx+168]
4c8b93b0000000        ; mov r10, [rbx+176]
4c8b9bb8000000        ; mov r11, [rbx+184]
4c8ba3c0000000        ; mov r12, [rbx+192]
4c8babc8000000        ; mov r13, [rbx+200]
4c8bb3d0000000        ; mov r14, [rbx+208]
4c8bbbd8000000        ; mov r15, [rbx+216]
488ba3e8000000        ; mov rsp, [rbx+232]
488b9be0000000        ; mov rbx, [rbx+224]
9d                    ; popfq
c28000                ; ret 128
"""


class X8664(Machine):
    """x86-64 as Linux has it: ``struct user_regs_struct``, <sys/user.h>; calls: <asm/unistd_64.h>."""

    fields = _FIELDS
    pc, sp, extended, futex = "rip", "rsp", _XSTATE, 202
    not_here = frozenset({9, 10, 11, 12, 25, 28, 202, 449})  # mmap mprotect munmap brk mremap madvise futex waitv
    leaving = frozenset({15, 56, 57, 58, 59, 60, 231, 322, 435})  # rt_sigreturn clone fork vfork exec exit execveat …
    code = bytes.fromhex("".join(line.partition(";")[0] for line in _LISTING.splitlines()))

    def call_of(self, now: Registers, read: Read) -> int | None:
        """The kernel keeps the number until the thread goes on."""
        return None if negative(now["orig_rax"]) < 0 else now["orig_rax"]

    def targets(self, at: int, code: bytes) -> set[int]:
        """By the opcodes of ``call``, ``jmp`` and short ``jmp``, wherever their bytes stand."""
        near = [match.start() for match in re.finditer(b"[\xe8\xe9]", code) if match.start() + 5 <= len(code)]
        short = [match.start() for match in re.finditer(b"\xeb", code) if match.start() + 2 <= len(code)]
        found = {at + n + 5 + int.from_bytes(code[n + 1 : n + 5], "little", signed=True) for n in near}
        return found | {at + n + 2 + int.from_bytes(code[n + 1 : n + 2], "little", signed=True) for n in short}

    def resume(self, now: Registers, call: int | None) -> Registers:
        """A call is made again by going back over its two bytes."""
        result = negative(now["rax"])
        if call is None or (result not in _RESTARTED and result != _RESTART_BLOCK):
            return now
        return dict(now, rax=_RESTART_SYSCALL if result == _RESTART_BLOCK else call, rip=now["rip"] - 2)

    def interrupted(self, now: Registers, read: Read) -> Registers | None:
        """Its result is EINTR, and the kernel forgets to make it again."""
        if self.call_of(now, read) is None or negative(now["rax"]) not in (*_RESTARTED, _RESTART_BLOCK):
            return None
        return dict(now, rax=(1 << 64) - _EINTR, orig_rax=_NO_CALL)

    def turn(self, places: Places, stopped: Stopped, resume: Registers, *, queue: bool, page: int) -> Turn:
        """The block below the red zone, and above it the frame that the last two instructions take."""
        now = stopped.registers
        end = now["rsp"] - _RED_ZONE - _FRAME.size
        source_at = end - len(places.source) & -16
        xstate_at = source_at - len(stopped.extended) & -64
        block_at = xstate_at - _BLOCK.size & -16
        block = _BLOCK.pack(
            *(places.functions[name] for name in FUNCTIONS),
            queue, places.record_at, source_at, len(places.source), page, SOURCE_PAGE, xstate_at,
            *(resume[name] for name in _SAVED), end,
            places.functions["__errno_location"],
        )  # fmt: skip
        stack = bytearray(now["rsp"] - _RED_ZONE - block_at)  # zeroed: XSAVE wants that of its header
        for at, part in (
            (block_at, block),
            (source_at, places.source),
            (end, _FRAME.pack(resume["eflags"], resume["rip"])),
        ):
            stack[at - block_at : at - block_at + len(part)] = part
        aside = dict(now, rbx=block_at, rsp=block_at - 256, rip=places.code_at, orig_rax=_NO_CALL)
        aside["eflags"] &= ~_TRAP_AND_DIRECTION
        return Turn(block_at, bytes(stack), aside)
