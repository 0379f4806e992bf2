"""Where things are in another process: its mapped ELF files, and the symbols and the slack in them.

Format: System V ABI, chapters 4 and 5; ``/proc/PID/maps``: proc(5).
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from struct import Struct

PAGE = mmap.PAGESIZE
X86_64, AARCH64 = 62, 183  # e_machine
_HEADER = Struct("<HHIQQQIHHHHHH")  # after e_ident
_SEGMENT = Struct("<IIQQQQQQ")
_SECTION = Struct("<IIQQQQIIQQ")
_SYMBOL = Struct("<IBBHQQ")
_UNWINDING = 0x6474E550  # PT_GNU_EH_FRAME
_USUAL_ENCODINGS = bytes((0x1B, 0x03, 0x3B))  # of the table: offsets in 4 bytes, from here, counted in 4 bytes
_SMALL = 64
_LOAD, _SYMTAB, _DYNSYM, _EXECUTABLE, _WRITABLE, _FIXED = 1, 2, 11, 1, 2, 2


@dataclass(frozen=True, slots=True)
class Mapped:
    """One line of ``/proc/PID/maps``: [low, high), permissions, offset in the file, path."""

    low: int
    high: int
    permissions: str
    offset: int
    path: str


def mappings(pid: int) -> list[Mapped]:
    """Every mapping of the process. Raises OSError where we may not look."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(None, 5)
        low, high = (int(part, 16) for part in fields[0].split("-"))
        found.append(Mapped(low, high, fields[1], int(fields[2], 16), fields[5] if len(fields) > 5 else ""))
    return found


def modules(maps: Iterable[Mapped]) -> dict[str, list[Mapped]]:
    """The mappings of each file, by its path."""
    found: dict[str, list[Mapped]] = {}
    for mapping in maps:
        if mapping.path.startswith("/"):
            found.setdefault(mapping.path, []).append(mapping)
    return found


def is_mapped(maps: Iterable[Mapped], low: int, high: int, permissions: str) -> bool:
    """Whether [low, high) lies in one mapping with at least these permissions (``"rx"``)."""
    return any(m.low <= low and high <= m.high and set(permissions) <= set(m.permissions) for m in maps)


class Elf:
    """A 64-bit little-endian ELF file; raises OSError or ValueError for anything else."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is no 64-bit ELF file")
        header = _HEADER.unpack_from(self._data, 16)
        self.fixed, self.machine = header[0] == _FIXED, header[1]
        self._segments_at, self._sections_at = header[4], header[5]
        self._segment_count, self._section_count = header[9], header[11]

    def symbols(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(value, size) of those names that are defined here; the full table serves where the dynamic one lacks one."""
        wanted = {name.encode() for name in names}
        found: dict[str, tuple[int, int]] = {}
        for kind in (_DYNSYM, _SYMTAB):
            for name, value, size in self._defined(kind, wanted):
                found.setdefault(name, (value, size))
            wanted -= {name.encode() for name in found}
        return found

    def bias(self, maps: Iterable[Mapped]) -> int:
        """What to add to this file's addresses where ``maps`` has it."""
        if self.fixed:
            return 0
        base = min(mapping.low - mapping.offset for mapping in maps)
        return base - min(segment[3] - segment[2] for segment in self._loads)

    def slack(self, *, executable: bool) -> tuple[int, int]:
        """[low, high) behind the code, or behind the writable data, up to the end of the page: mapped, nobody's."""
        flag = _EXECUTABLE if executable else _WRITABLE
        end = max((s[3] + s[6] for s in self._loads if s[1] & flag), default=0)
        return (end + 15) & -16, (end + PAGE - 1) & -PAGE

    def told(self, pattern: re.Pattern[bytes]) -> str | None:
        """What the pattern's first group finds in the file's bytes; None without a match."""
        found = pattern.search(self._data)
        return found[1].decode() if found else None

    def bytes_at(self, address: int, size: int) -> bytes:
        """What the file has there; nothing where that is no part of it."""
        for segment in self._loads:
            if segment[3] <= address < segment[3] + segment[5]:
                at = address - segment[3] + segment[2]
                return self._data[at : at + size]
        return b""

    def function_at(self, address: int) -> tuple[int, int]:
        """[low, high) of the function that holds an address, static ones too, by the table for unwinding (LSB,
        "Exception Frames", .eh_frame_hdr); a few bytes where there is none."""
        starts = self._function_starts
        at = bisect_right(starts, address)
        return (starts[at - 1], starts[at]) if 0 < at < len(starts) else (address, address + _SMALL)

    @cached_property
    def _function_starts(self) -> list[int]:
        home = next((segment[3] for segment in self._segments if segment[0] == _UNWINDING), None)
        if home is None or self.bytes_at(home, 4)[1:] != _USUAL_ENCODINGS:
            return []
        count = int.from_bytes(self.bytes_at(home + 8, 4), "little")
        return sorted(home + start for start, _ in struct.iter_unpack("<ii", self.bytes_at(home + 12, 8 * count)))

    @cached_property
    def _segments(self) -> list[tuple[int, ...]]:
        return [_SEGMENT.unpack_from(self._data, self._segments_at + 56 * n) for n in range(self._segment_count)]

    @property
    def _loads(self) -> list[tuple[int, ...]]:
        return [segment for segment in self._segments if segment[0] == _LOAD]

    @cached_property
    def _sections(self) -> list[tuple[int, ...]]:
        return [_SECTION.unpack_from(self._data, self._sections_at + 64 * n) for n in range(self._section_count)]

    def _defined(self, kind: int, wanted: set[bytes]) -> Iterator[tuple[str, int, int]]:
        for section in self._sections if wanted else ():
            if section[1] != kind:
                continue
            texts = self._sections[section[6]]
            strings = self._data[texts[4] : texts[4] + texts[5]]
            for at, _, _, home, value, size in _SYMBOL.iter_unpack(self._data[section[4] : section[4] + section[5]]):
                name = strings[at : strings.find(b"\0", at, at + 64)] if home else b""
                if name in wanted:
                    yield name.decode(), value, size


def open_module(pid: int, path: str, maps: Iterable[Mapped]) -> Elf:
    """The file behind a path of the process, deleted or in another mount namespace too. Raises OSError, ValueError."""
    first = next(iter(maps))
    try:
        return Elf(f"/proc/{pid}/root{path}")
    except OSError:
        return Elf(f"/proc/{pid}/map_files/{first.low:x}-{first.high:x}")


@dataclass(frozen=True, slots=True)
class Module:
    """A mapped file, and where its addresses are in the process."""

    path: str
    elf: Elf
    bias: int

    def addresses(self, names: Iterable[str]) -> Mapping[str, int]:
        """Addresses in the process of those names that the module defines."""
        return {name: value + self.bias for name, (value, _) in self.elf.symbols(names).items()}

    def slack(self, *, executable: bool) -> tuple[int, int]:
        """``Elf.slack`` in the process."""
        low, high = self.elf.slack(executable=executable)
        return low + self.bias, high + self.bias


def module_of(pid: int, path: str, maps: list[Mapped]) -> Module | None:
    """The module behind a path; None when it is no ELF file, or cannot be opened."""
    try:
        elf = open_module(pid, path, maps)
    except (OSError, ValueError):
        return None
    return Module(path, elf, elf.bias(maps))


def interpreter_of(pid: int, by_path: Mapping[str, list[Mapped]], name: str) -> Module | None:
    """The module that defines the interpreter's function ``name``: libpython, or the program itself."""
    libraries = [path for path in by_path if "libpython" in os.path.basename(path)]
    for path in [*libraries, os.readlink(f"/proc/{pid}/exe"), *by_path]:
        known = path in libraries or "python" in os.path.basename(path) or ".so" not in os.path.basename(path)
        module = module_of(pid, path, by_path[path]) if known and path in by_path else None
        if module is not None and module.elf.symbols([name]):
            return module
    return None
