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
