"""Files are opened, unpacked and read in one pass."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from stallscope.errors import UnreadableInput
from stallscope.ingest.source import CHUNK_BYTES, ZSTD_MODULES, Source

TEXT = b"".join(b"line %d of a text that is packed and unpacked\n" % number for number in range(60_000))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gz", "xz"])
def test_a_packed_file_is_read_whole_and_only_in_whole_lines(pack: object, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(pack(TEXT))  # type: ignore[operator]
    chunks = list(Source(path).chunks())
    assert b"".join(chunks) == TEXT
    assert len(chunks) > len(TEXT) // (2 * CHUNK_BYTES)
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert Source(path).whole() == TEXT


def test_zstd_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "trace.zst"
    packer = zstandard.ZstdCompressor()
    half = len(TEXT) // 2
    path.write_bytes(packer.compress(TEXT[:half]) + packer.compress(TEXT[half:]))  # two frames, as zstd appends them
    assert b"".join(Source(path).chunks()) == TEXT


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(TEXT))))
    monkeypatch.setattr(sys, "stdin", stdin)
    source = Source(Path("-"))
    assert b"".join(source.chunks()) == TEXT
    assert source.name == "standard input"


def test_torn_archive_gives_what_came_before_the_tear(tmp_path: Path) -> None:
    path = tmp_path / "torn.gz"
    packed = gzip.compress(TEXT)
    path.write_bytes(packed[: len(packed) // 2])
    source = Source(path)
    read = b"".join(source.chunks())
    assert source.torn
    assert read
    assert TEXT.startswith(read)


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="cannot be opened"):
        Source(tmp_path / "absent")
    with pytest.raises(UnreadableInput, match="cannot be opened"):
        Source(tmp_path)


def test_zstd_without_a_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    for name in ZSTD_MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnreadableInput, match="zstd"):
        Source(path)


def test_progress_reaches_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(TEXT)
    told: list[tuple[int, int | None]] = []
    list(Source(path, lambda done, size: told.append((done, size))).chunks())
    assert told[-1] == (len(TEXT), len(TEXT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress], ids=["gz", "xz", "zst"])
def test_of_packed_data_that_break_off_all_that_can_be_unpacked_is_read(pack: object, tmp_path: Path) -> None:
    noise = b"".join(b"%d\n" % hash((number, "x")) for number in range(40_000))
    packed: bytes = pack(noise)  # type: ignore[operator]
    path = tmp_path / "trace"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    source = Source(path)
    read = b"".join(source.chunks())
    assert source.torn
    assert noise.startswith(read)
    assert len(read) > len(noise) // 2
    path.write_bytes(packed[:9])
    with pytest.raises(UnreadableInput, match="broken before its first line"):
        Source(path)


def test_a_frame_of_zstd_that_is_damaged_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "trace.zst"
    path.write_bytes(zstandard.compress(TEXT) + zstandard.compress(TEXT)[:-40] + b"?" * 40)
    source = Source(path)
    assert b"".join(source.chunks()).startswith(TEXT)
    assert source.torn


def test_lines_end_by_a_line_feed_whatever_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace(b"\n", b"\r\n"))
    assert b"".join(Source(path).chunks()) == TEXT
    path.write_bytes(TEXT.decode().encode("utf-16"))
    with pytest.raises(UnreadableInput, match="UTF-16"):
        Source(path)


def test_progress_is_told_of_each_file_from_its_beginning(tmp_path: Path) -> None:
    path, told = tmp_path / "trace", list[tuple[int, "int | None"]]()
    path.write_bytes(TEXT)
    for _ in Source(path, lambda done, size: told.append((done, size))).chunks():
        pass
    assert told[0] == (0, len(TEXT))
    assert told[-1] == (len(TEXT), len(TEXT))


def test_standard_input_that_is_closed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UnreadableInput, match="closed"):
        Source(Path("-"))


def _first_chunk(path: Path) -> tuple[Iterator[bytes], bytes]:
    chunks = Source(path).chunks()
    return chunks, next(chunks)


def test_a_file_that_grows_is_read_as_far_as_it_went_when_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(TEXT + b"the beginning of a li")
    chunks, first = _first_chunk(path)
    with path.open("ab") as writer:
        writer.write(b"ne\n" + TEXT)
    rest = list(chunks)
    assert first + b"".join(rest) == TEXT + b"the beginning of a li"
    assert rest[-1] == b"the beginning of a li"


def test_a_file_that_shrinks_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(TEXT)
    source = Source(path)
    chunks = source.chunks()
    first = next(chunks)
    os.truncate(path, len(first) + 100_000)
    assert TEXT.startswith(first + b"".join(chunks))
    assert source.torn == "the file became shorter while it was read"


def test_a_file_that_is_replaced_is_read_to_its_own_end(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(TEXT)
    chunks, first = _first_chunk(path)
    (tmp_path / "other").write_bytes(b"another trace\n")
    (tmp_path / "other").replace(path)
    assert first + b"".join(chunks) == TEXT


class Damaged(io.RawIOBase):
    """A file on a disk that cannot be read beyond two megabytes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._left = descriptor, 2_000_000

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        data = os.read(self._descriptor, min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def test_a_file_that_cannot_be_read_on_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace"
    path.write_bytes(TEXT)
    with path.open("rb") as file:
        monkeypatch.setattr("stallscope.ingest.source._open", lambda _: io.BufferedReader(Damaged(file.fileno())))
        with pytest.raises(UnreadableInput, match=r"beyond its first 2,000,000 bytes \(Input/output error"):
            list(Source(path).chunks())


@pytest.mark.skipif(sys.platform != "linux", reason="there is no file here whose first byte cannot be read")
def test_a_file_that_cannot_be_read_at_all_is_one_sentence() -> None:
    with pytest.raises(UnreadableInput, match=r"/proc/self/mem cannot be read \(Input/output error\)"):
        Source(Path("/proc/self/mem"))


@pytest.mark.skipif(sys.platform != "linux", reason="there is no file here that hides its size")
def test_a_file_that_hides_its_size_is_read_whole() -> None:
    assert b"".join(Source(Path("/proc/self/status")).chunks()).endswith(b"\n")
