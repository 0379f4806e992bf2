"""The machine code that the stopped thread is turned aside to (x86-64), and the block it works from.

It saves every register, asks whether Python may run here, runs it (or queues it as a pending call),
puts everything back and returns to where the thread was. By then we have long let go.

It lies in the slack behind the code of a mapped file, where nothing ever runs and which needs no
system call in the target to make; writing there gives the process its own copy of that page. Its
block lies on the thread's own stack, below the red zone. What failed: a page got by stepping an
``mmap`` in the target: killed in the middle of that, the injector took the target with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from stallscope.attach.ptrace import Registers

DONE, ABSENT, HELD, NO_MEMORY, QUEUED, FULL = 1, 2, 3, 4, 5, 6
"""What the record says at the end: ran; no interpreter, or one that is ending; the GIL was held here; no page to be
had; the call is queued; the queue is full. 0 until then."""

RECORD = Struct("<4Q")
"""The record: status, page of the queued source, seconds and nanoseconds of the end on CLOCK_MONOTONIC."""

FUNCTIONS = (
    "Py_IsInitialized", "Py_IsFinalizing", "PyGILState_Check", "PyGILState_Ensure", "PyRun_SimpleString",
    "PyGILState_Release", "Py_AddPendingCall",
)  # fmt: skip
"""Functions of the interpreter that it calls, in the order of the block; ``_Py_IsFinalizing`` before 3.13."""

_SAVED = ("rax", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rbx")
_BLOCK = Struct("<7Q 7Q 16Q Q")
_RED_ZONE = 128
_FRAME = Struct("<2Q")  # flags and address to return to
_TRAP_AND_DIRECTION = 0x500
_NO_CALL = (1 << 64) - 1
_SOURCE_PAGE = 4096

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
CODE = bytes.fromhex("".join(line.partition(";")[0] for line in _LISTING.splitlines()))


class Trampoline:
    """Where the code, the record and the functions are in one target; makes the block for one stop."""

    def __init__(self, code_at: int, record_at: int, functions: Mapping[str, int], source: bytes) -> None:
        self._code_at = code_at
        self._record_at = record_at
        self._functions = functions
        self._source = source + b"\0"
        if len(self._source) > _SOURCE_PAGE:
            raise ValueError(f"a source of {len(source)} bytes is more than the page that a queued one has")

    def room(self, xstate_bytes: int) -> int:
        """Bytes of stack that it needs below the stack pointer, what its own calls need included."""
        return 16384 + xstate_bytes + len(self._source)

    def turn(self, now: Registers, resume: Registers, xstate_bytes: int, *, queue: bool, page: int) -> _Turn:
        """What to write where, and the registers to set, so that the thread takes the way round to ``resume``."""
        end = now["rsp"] - _RED_ZONE - _FRAME.size
        source_at = end - len(self._source) & -16
        xstate_at = source_at - xstate_bytes & -64
        block_at = xstate_at - _BLOCK.size & -16
        block = _BLOCK.pack(
            *(self._functions[name] for name in FUNCTIONS),
            queue, self._record_at, source_at, len(self._source), page, _SOURCE_PAGE, xstate_at,
            *(resume[name] for name in _SAVED), end,
            self._functions["__errno_location"],
        )  # fmt: skip
        stack = bytearray(now["rsp"] - _RED_ZONE - block_at)  # zeroed: XSAVE wants that of its header
        for at, part in (
            (block_at, block),
            (source_at, self._source),
            (end, _FRAME.pack(resume["eflags"], resume["rip"])),
        ):
            stack[at - block_at : at - block_at + len(part)] = part
        aside = dict(now, rbx=block_at, rsp=block_at - 256, rip=self._code_at, orig_rax=_NO_CALL)
        aside["eflags"] &= ~_TRAP_AND_DIRECTION
        return _Turn(block_at, bytes(stack), aside)


class _Turn:
    """One prepared way round: ``stack`` goes to ``stack_at``, then ``registers`` are set."""

    def __init__(self, stack_at: int, stack: bytes, registers: Registers) -> None:
        self.stack_at, self.stack, self.registers = stack_at, stack, registers
