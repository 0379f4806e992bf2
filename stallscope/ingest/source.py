"""A foreign file as lines of bytes: opened, unpacked and read in one pass, in constant memory."""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol, cast

from stallscope.errors import UnreadableInput

HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 1 << 20
LINE_MAX_BYTES = 1 << 20
"""A longer line is cut: no tracer prints one, and memory stays bounded."""
WHOLE_MAX_BYTES = 1 << 30
"""JSON must be read as a whole; more than this is refused."""

Progress = Callable[[int, "int | None"], None]
"""Called now and then with the bytes of the file read so far, and its size (None for a stream)."""


class Stream(Protocol):
    """What is read: at most `size` bytes at a time, none at the end."""

    def read1(self, size: int = -1, /) -> bytes: ...


ZSTD_MODULES = ("compression.zstd", "zstandard", "pyzstd")
COLOURS = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
BROKEN = "is packed and broken before its first line, cut off or damaged: copy it again"
EMPTIED = "was emptied while it was opened, by a recorder that starts anew perhaps: analyze it when that is done"
TORN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Source:
    """One foreign file.  `head` holds its first bytes, unpacked; `chunks`, `lines` and `whole` read all of it, once.

    A file that grows meanwhile is read as far as it went when it was opened.  Raises UnreadableInput when the file
    cannot be opened, read or unpacked.  `torn` says, after reading, what broke off in the middle, for a sentence: what
    came before it was read.
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.path = path
        self.torn = ""
        self._progress = progress
        self._read_bytes = 0
        self._raw = _open(path)
        self._size = None if path == Path("-") else _size(self._raw)
        if progress:
            progress(0, self._size)  # of several files, the next has begun
        self._stream = _unpacked(self._raw, self.name)
        self._plain_bytes = self._size if isinstance(self._stream, io.BufferedReader) else None
        head = self._read(HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
        self._windows, self._coloured = b"\r\n" in head, b"\x1b[" in head
        self.head = self._plain(head)
        if self.torn and not head:
            raise UnreadableInput(f"{self.name} {EMPTIED if self._plain_bytes else BROKEN}.")
        if _is_utf16(head):
            raise UnreadableInput(f"{self.name} is UTF-16 text: convert it first, with iconv -f UTF-16 -t UTF-8.")

    @property
    def name(self) -> str:
        return "standard input" if self.path == Path("-") else str(self.path)

    def chunks(self) -> Iterator[bytes]:
        """Everything, in pieces of whole lines, by a line feed alone; a last line without one is a piece of its own."""
        yield from map(self._plain, self._pieces())

    def _plain(self, text: bytes) -> bytes:
        """Without what Windows and terminals put into a text."""
        text = text.replace(b"\r\n", b"\n") if self._windows else text
        return COLOURS.sub(b"", text) if self._coloured else text

    def _pieces(self) -> Iterator[bytes]:
        rest = self.head
        while piece := self._read(CHUNK_BYTES):
            rest += piece
            end = rest.rfind(b"\n") + 1
            if end:
                yield rest[:end]
                rest = rest[end:]
            elif len(rest) > LINE_MAX_BYTES:
                rest = rest[:LINE_MAX_BYTES]
        end = rest.rfind(b"\n") + 1
        yield from (piece for piece in (rest[:end], rest[end:]) if piece)

    def lines(self) -> Iterator[str]:
        for chunk in self.chunks():
            yield from chunk.decode("utf-8", "replace").splitlines()

    def whole(self) -> bytes:
        pieces, total = [self.head], len(self.head)
        while piece := self._read(CHUNK_BYTES):
            pieces.append(piece)
            total += len(piece)
            if total > WHOLE_MAX_BYTES:
                raise UnreadableInput(f"{self.name} is JSON of over 1 GiB, too much to read whole: cut it shorter.")
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        if self._plain_bytes:  # that of /proc is 0, and unknown
            size = max(0, min(size, self._plain_bytes - self._read_bytes))
        data = b""
        try:
            # Not read(): where that meets the end of packed data that breaks off, it drops what it had so far.
            while not self.torn and len(data) < size and (more := self._stream.read1(size - len(data))):
                data += more
        except TORN:
            self.torn = "the packed file breaks off in the middle"
        except OSError as error:
            raise _unreadable(self.name, self._read_bytes + len(data), error) from None
        self._read_bytes += len(data)
        if self._plain_bytes and len(data) < size:
            self.torn = "the file became shorter while it was read"
        if self._progress:
            self._progress(self._read_bytes if self._size is None else self._raw.tell(), self._size)
        return data


def _unreadable(name: str, at: int, error: OSError) -> UnreadableInput:
    """Of a file that was opened, and cannot be read (on)."""
    why = error.strerror or str(error)
    if not at:
        return UnreadableInput(f"{name} cannot be read ({why}): check that it is a file with text in it.")
    return UnreadableInput(
        f"{name} cannot be read beyond its first {at:,} bytes ({why}), a damaged disk or a lost connection perhaps: "
        "copy what can be read, and analyze the copy."
    )


def _open(path: Path) -> IO[bytes]:
    if path == Path("-"):
        if sys.stdin is None:
            raise UnreadableInput("standard input is closed: pipe a trace into it, or name a file.")
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableInput(f"{path} cannot be opened ({error.strerror}): check the name and your rights.") from None


def _is_utf16(head: bytes) -> bool:
    """By its mark, or since every other byte of its first characters is zero."""
    low, high = head[:64:2], head[1:64:2]
    unmarked = len(high) > 8 and any(any(one) and not any(other) for one, other in ((low, high), (high, low)))
    return unmarked or head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _size(raw: IO[bytes]) -> int | None:
    """Of the very file that was opened: the name may stand for another by now."""
    status = os.fstat(raw.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _unpacked(raw: IO[bytes], name: str) -> Stream:
    """The stream itself, or its unpacked content, by its magic number."""
    peekable = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    try:
        magic = peekable.peek(6)[:6]
    except OSError as error:
        raise _unreadable(name, 0, error) from None
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=peekable)
    if magic.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(peekable)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(peekable, name)
    return peekable


def _zstd(stream: IO[bytes], name: str) -> Stream:
    """A reader of Zstandard, which the standard library has from 3.14 on, and packages before."""
    for module_name in ZSTD_MODULES:
        try:
            module: Any = import_module(module_name)
        except ImportError:
            continue
        if module_name == "zstandard":
            return Zstandard(stream, module.ZstdDecompressor())
        return cast(Stream, module.ZstdFile(stream))
    raise UnreadableInput(
        f"{name} is packed by zstd, which this Python cannot read: install zstandard, or run zstd -d."
    )


class Zstandard:
    """A reader by the package zstandard, whose own one takes data that break off for whole ones."""

    def __init__(self, stream: IO[bytes], unpacker: Any) -> None:
        self._stream, self._unpacker = stream, unpacker
        self._frame: Any = None
        self._packed = self._ready = b""

    def read1(self, size: int = -1) -> bytes:
        """Raises EOFError where a frame breaks off or is damaged."""
        while not self._ready:
            self._packed = self._packed or self._stream.read(CHUNK_BYTES // 8)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError
                break
            self._unpack()
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _unpack(self) -> None:
        self._frame = self._frame or self._unpacker.decompressobj()
        try:
            self._ready = self._frame.decompress(self._packed)
        except Exception as error:  # ZstdError, a class of the package
            raise EOFError from error
        self._packed = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
