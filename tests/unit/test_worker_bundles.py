"""Bundles: whatever a zip says, nothing is written outside of its folder."""

from __future__ import annotations

import asyncio
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from grampus.worker import bundles
from grampus.worker.bundles import BadBundle, Bundles

HASH = "a" * 64


def pack(path: Path, fill: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        fill(file)
    return path


def unpack(folder: Path, archive: Path, hash: str = HASH) -> Path:
    return Path(asyncio.run(Bundles(folder / "bundles").unpack(hash, archive)))


def test_a_bundle_becomes_a_private_folder_with_its_files(tmp_path: Path) -> None:
    def fill(file: zipfile.ZipFile) -> None:
        file.writestr("a/", "")
        file.writestr("a/b/m.py", "x = 1")
        script = zipfile.ZipInfo("run.sh")
        script.external_attr = 0o755 << 16
        file.writestr(script, "#!/bin/sh\n")
        file.writestr(".complete", "mine")

    found = unpack(tmp_path, pack(tmp_path / "b.zip", fill))
    assert (found / "a/b/m.py").read_text() == "x = 1"
    assert (found / ".complete").read_text() == "mine"
    assert os.access(found / "run.sh", os.X_OK)
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert stat.S_IMODE((found / "a/b/m.py").stat().st_mode) == 0o600


def _link(file: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file.writestr(link, "/etc")


def _twice(file: zipfile.ZipFile) -> None:
    file.writestr("a", "1")
    file.writestr("./a", "2")


def _file_and_folder(file: zipfile.ZipFile) -> None:
    file.writestr("a", "1")
    file.writestr("a/b", "2")


@pytest.mark.parametrize(
    "fill",
    [
        lambda file: file.writestr("../evil", "x"),
        lambda file: file.writestr("a/../../evil", "x"),
        lambda file: file.writestr("/evil", "x"),
        lambda file: file.writestr("a\\..\\evil", "x"),
        lambda file: file.writestr("x" * 600, "x"),
        _link,
        pytest.param(_twice, marks=pytest.mark.filterwarnings("ignore:Duplicate")),
        _file_and_folder,
    ],
)
def test_a_hostile_zip_is_refused_and_leaves_nothing(
    tmp_path: Path, fill: Callable[[zipfile.ZipFile], None]
) -> None:
    archive = pack(tmp_path / "b.zip", fill)
    with pytest.raises(BadBundle):
        unpack(tmp_path, archive)
    assert list((tmp_path / "bundles").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "bundles"]


def test_what_is_too_large_is_refused_even_if_its_header_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "SIZE_LIMIT", 1000)
    archive = pack(tmp_path / "b.zip", lambda file: file.writestr("a", b"\0" * 5000))
    with pytest.raises(BadBundle, match="more than 1,000 bytes"):
        unpack(tmp_path, archive)
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<L", 5000), struct.pack("<L", 10)))
    with pytest.raises(BadBundle):
        unpack(tmp_path, archive)
    monkeypatch.setattr(bundles, "FILES_LIMIT", 1)
    two = pack(tmp_path / "c.zip", lambda file: [file.writestr(n, "") for n in "ab"] and None)
    with pytest.raises(BadBundle, match="has 2 files"):
        unpack(tmp_path, two)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"garbage" * 100])
def test_what_is_no_zip_is_refused(tmp_path: Path, damage: bytes) -> None:
    archive = tmp_path / "b.zip"
    archive.write_bytes(damage)
    with pytest.raises(BadBundle, match="cannot be unpacked"):
        unpack(tmp_path, archive)


def test_a_broken_member_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    archive = pack(tmp_path / "b.zip", lambda file: file.writestr("a", os.urandom(100)))
    data = bytearray(archive.read_bytes())
    data[50] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(BadBundle):
        unpack(tmp_path, archive)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_many_wait_for_one_unpack_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    archive = pack(tmp_path / "b.zip", lambda file: file.writestr("a", "x"))

    async def story() -> None:
        store = Bundles(tmp_path / "bundles", kept=2)
        folders = await asyncio.gather(*(store.unpack("1" * 64, archive) for _ in range(5)))
        assert len(set(folders)) == 1
        for _ in range(5):
            store.release("1" * 64)
        await store.unpack("2" * 64, archive)
        await store.unpack("3" * 64, archive)
        # Two are used: the bound yields to those, and what nobody uses has gone.
        assert not store.has("1" * 64)
        assert store.ready("1" * 64) is None
        store.release("2" * 64)
        await store.unpack("1" * 64, archive)
        assert sorted(path.name[0] for path in (tmp_path / "bundles").iterdir()) == ["1", "3"]

    asyncio.run(story())


def test_what_a_crash_left_is_removed_and_what_is_whole_is_used(tmp_path: Path) -> None:
    archive = pack(tmp_path / "b.zip", lambda file: file.writestr("a", "x"))
    unpack(tmp_path, archive)
    (tmp_path / "bundles" / "half.aside").mkdir()
    store = Bundles(tmp_path / "bundles")
    assert store.ready(HASH) == str(tmp_path / "bundles" / HASH)
    assert sorted(path.name for path in (tmp_path / "bundles").iterdir()) == [HASH]
