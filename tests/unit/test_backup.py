"""The file of a snapshot: whole in, whole out, and refused when it is not."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from grampus.backup import Contents, look, pack, packed_size, unpack
from grampus.blobs import Blobs
from grampus.errors import InvalidInput, NotFound, Refused

GONE = "0" * 64


def stored(tmp_path: Path, contents: list[bytes]) -> tuple[Blobs, Contents]:
    blobs = Blobs(tmp_path / "blobs")
    held = {blobs.put(data): len(data) for data in contents}
    return blobs, Contents(held, (GONE,))


def packed(tmp_path: Path, contents: list[bytes], ledger: bytes = b"the ledger") -> Path:
    blobs, held = stored(tmp_path, contents)
    source = tmp_path / "source"
    source.write_bytes(ledger)
    file = tmp_path / "saved.tar"
    with source.open("rb") as data:
        file.write_bytes(b"".join(pack(data, len(ledger), blobs, held)))
    assert file.stat().st_size == packed_size(len(ledger), held)
    return file


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 3_000_000])
def test_what_was_put_in_comes_out(tmp_path: Path, size: int) -> None:
    first, second = bytes(size), b"x" * (size + 1)
    file = packed(tmp_path, [first, second], ledger=b"l" * size)
    there = Blobs(tmp_path / "there")
    found = unpack(file, tmp_path / "ledger", there)
    assert found == look(file)
    assert (tmp_path / "ledger").read_bytes() == b"l" * size
    assert found.size == size + size + 1
    assert found.missing == (GONE,)
    assert sorted(len(b"".join(there.pieces(hash))) for hash in found.blobs) == [size, size + 1]
    with tarfile.open(file) as archive:  # any tar reads it
        assert archive.getnames()[0] == "ledger.db"


def test_a_blob_that_is_damaged_in_it_is_refused(tmp_path: Path) -> None:
    file = packed(tmp_path, [b"a blob"])
    file.write_bytes(file.read_bytes().replace(b"a blob", b"a BLOB"))
    with pytest.raises(InvalidInput, match="not those of the hash"):
        unpack(file, tmp_path / "ledger", Blobs(tmp_path / "there"))


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0" + bytes(5000)])
def test_what_is_no_snapshot_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "other"
    file.write_bytes(data)
    with pytest.raises(Refused, match="no snapshot of a cluster"):
        unpack(file, tmp_path / "ledger", Blobs(tmp_path / "there"))


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    file = packed(tmp_path, [b"x" * 5000])
    file.write_bytes(file.read_bytes()[:4000])
    with pytest.raises((Refused, InvalidInput)):
        unpack(file, tmp_path / "ledger", Blobs(tmp_path / "there"))


def test_a_blob_that_goes_meanwhile_breaks_it_off(tmp_path: Path) -> None:
    blobs, held = stored(tmp_path, [b"x"])
    blobs.remove(next(iter(held.blobs)), before=float("inf"))
    source = tmp_path / "source"
    source.write_bytes(b"l")
    with source.open("rb") as data, pytest.raises(NotFound, match="ask again"):
        list(pack(data, 1, blobs, held))
