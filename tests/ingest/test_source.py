"""Files are opened, unpacked and read in one pass."""

from __future__ import annotations

import gzip
import io
import lzma
import sys
from pathlib import Path

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
