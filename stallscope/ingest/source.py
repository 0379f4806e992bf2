"""A foreign file as lines of bytes: opened, unpacked and read in one pass, in constant memory."""

from __future__ import annotations

import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from stallscope.errors import UnreadableInput

HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 1 << 20
LINE_MAX_BYTES = 1 << 20
"""A longer line is cut: no tracer prints one, and memory stays bounded."""
WHOLE_MAX_BYTES = 1 << 30
"""JSON must be read as a whole; more than this is refused."""

Progress = Callable[[int, "int | None"], None]
"""Called now and then with the bytes of the file read so far, and its size (None for a stream)."""

ZSTD_MODULES = ("compression.zstd", "zstandard", "pyzstd")
TORN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Source:
    """One foreign file.  `head` holds its first bytes, unpacked; `chunks`, `lines` and `whole` read all of it, once.

    Raises UnreadableInput when the file cannot be opened or unpacked.  `torn` says, after reading, that the packed
    data broke off in the middle: what came before it was read.
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.path = path
        self.torn = False
        self._progress = progress
        self._raw = _open(path)
        self._size = None if path == Path("-") else path.stat().st_size
        self._stream = _unpacked(self._raw, path)
        self.head = self._read(HEAD_BYTES)

    @property
    def name(self) -> str:
        return "standard input" if self.path == Path("-") else str(self.path)

    def chunks(self) -> Iterator[bytes]:
        """Everything, in pieces that end where a line ends (the last one need not)."""
        rest = self.head
        while piece := self._read(CHUNK_BYTES):
            rest += piece
            end = rest.rfind(b"\n") + 1
            if end:
                yield rest[:end]
                rest = rest[end:]
            elif len(rest) > LINE_MAX_BYTES:
                rest = rest[:LINE_MAX_BYTES]
        if rest:
            yield rest

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
        if self.torn:
            return b""
        try:
            data = self._stream.read(size)
        except TORN:
            self.torn = True
            return b""
        except OSError as error:
            raise UnreadableInput(f"{self.name} cannot be read: {error.strerror or error}.") from None
        if self._progress:
            self._progress(self._raw.tell() if self._size is not None else 0, self._size)
        return data


def _open(path: Path) -> IO[bytes]:
    if path == Path("-"):
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableInput(f"{path} cannot be opened ({error.strerror}): check the name and your rights.") from None


def _unpacked(raw: IO[bytes], path: Path) -> IO[bytes]:
    """The stream itself, or its unpacked content, by its magic number."""
    peekable = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    magic = peekable.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=peekable))
    if magic.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.LZMAFile(peekable))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(peekable, path)
    return peekable


def _zstd(stream: IO[bytes], path: Path) -> IO[bytes]:
    """A reader of Zstandard, which the standard library has from 3.14 on, and packages before."""
    for name in ZSTD_MODULES:
        try:
            module: Any = import_module(name)
        except ImportError:
            continue
        if name == "zstandard":
            return cast("IO[bytes]", module.ZstdDecompressor().stream_reader(stream, read_across_frames=True))
        return cast("IO[bytes]", module.ZstdFile(stream))
    raise UnreadableInput(
        f"{path} is packed by zstd, which this Python cannot read: install zstandard, or run zstd -d."
    )
