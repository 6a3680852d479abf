"""The data folder: founding, the lock, and what is refused."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from grampus.consensus.folder import ENTROPY, FORMAT_VERSION, DataFolder
from grampus.errors import FolderError

ONE, TWO = bytes(range(ENTROPY)), bytes(range(100, 100 + ENTROPY))


def take(path: Path, machine: str = "m1", entropy: bytes = ONE) -> DataFolder:
    return DataFolder.open(path, machine=machine, entropy=entropy)


def found(path: Path) -> Path:
    take(path).close()
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_founded_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with take(path) as folder:
        assert folder.founded
        first = folder.identity
        assert len({first.cluster, first.history, first.node}) == 3
    with take(path, entropy=TWO) as folder:
        assert not folder.founded
        assert folder.identity == first
        for sub in (folder.log, folder.ledger, folder.blobs, folder.worker):
            assert mode(sub) == 0o700
    assert mode(path) == 0o700
    assert mode(path / "node.toml") == mode(path / "lock") == 0o600


def test_different_entropy_makes_different_ids(tmp_path: Path) -> None:
    with take(tmp_path / "a") as a, take(tmp_path / "b", entropy=TWO) as b:
        assert a.identity.cluster != b.identity.cluster
        assert a.identity.node != b.identity.node
    with pytest.raises(ValueError, match="entropy"):
        take(tmp_path / "c", entropy=b"short")


def test_an_empty_folder_with_open_permissions_is_made_private(tmp_path: Path) -> None:
    tmp_path.joinpath("d").mkdir(mode=0o755)
    found(tmp_path / "d")
    assert mode(tmp_path / "d") == 0o700


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    path = found(tmp_path / "d")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from grampus.consensus.folder import DataFolder\n"
            "f = DataFolder.open(Path(sys.argv[1]), machine='m1', entropy=bytes(30))\n"
            "print('held', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FolderError, match=f"in use by process {holder.pid}$"):
            take(path)
        holder.kill()
    take(path).close()


def test_a_moved_folder_is_the_same_node(tmp_path: Path) -> None:
    path = found(tmp_path / "d")
    path.rename(tmp_path / "e")
    assert not take(tmp_path / "e").founded


def test_a_copy_is_refused_until_a_person_says_that_the_original_is_gone(tmp_path: Path) -> None:
    path, copy = found(tmp_path / "d"), tmp_path / "copy"
    shutil.copytree(path, copy)
    with pytest.raises(FolderError, match="is a copy on this machine") as refused:
        take(copy)
    assert "remove the lines" in str(refused.value)
    assert "\n" not in str(refused.value)
    file = copy / "node.toml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(x for x in lines if not x.startswith(("machine", "place"))))
    with take(copy) as adopted, take(path) as original:
        assert adopted.identity.node == original.identity.node
    take(copy).close()
    with pytest.raises(FolderError, match="copy from another machine"):
        take(copy, machine="m2")


def test_a_copy_over_the_original_is_refused_too(tmp_path: Path) -> None:
    path = found(tmp_path / "d")
    shutil.copytree(path, tmp_path / "backup")
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "backup", path)
    with pytest.raises(FolderError, match="is a copy"):
        take(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = found(tmp_path / "d")
    file = path / "node.toml"
    file.write_text(file.read_text().replace("format = 1", f"format = {FORMAT_VERSION + 1}"))
    with pytest.raises(FolderError, match=r"has format 2, this Grampus knows 1"):
        take(path)


@pytest.mark.parametrize("text", ["", "format = ", "format = 'x'", "format = 1\n", "\xff\xfe"])
def test_a_damaged_identity_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = found(tmp_path / "d")
    (path / "node.toml").write_text(text, "latin-1")
    with pytest.raises(FolderError, match="damaged"):
        take(path)
    assert (path / "node.toml").read_text("latin-1") == text


def test_a_folder_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir(mode=0o755)
    (path / "thesis.tex").write_text("...")
    with pytest.raises(FolderError, match=r"not empty \(it holds thesis.tex\)"):
        take(path)
    assert os.listdir(path) == ["thesis.tex"]
    assert mode(path) == 0o755


def test_settings_may_be_there_before_the_folder_is_founded(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    (path / "grampus.toml").write_text("slots = 2\n")
    take(path).close()
    assert (path / "grampus.toml").read_text() == "slots = 2\n"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("x")
    with pytest.raises(FolderError, match="cannot be used"):
        take(tmp_path / "d")


def test_founding_goes_on_after_a_crash_in_its_middle(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    (path / "lock").touch()
    (path / "node.toml.new").write_text("format = 1\nclus")
    with take(path) as folder:
        assert folder.founded
    assert sorted(os.listdir(path)) == ["blobs", "ledger", "lock", "log", "node.toml", "worker"]
