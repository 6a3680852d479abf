"""Where a cgroup folder may be made, and which ones are ours to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from grampus.worker import cgroup

V1 = "30 1 0:28 / {0}/v1 rw - cgroup cgroup rw,cpu\n"
V2 = "31 1 0:29 {1} {0} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"


def system(
    monkeypatch: pytest.MonkeyPatch, mount: Path, own: str, root: str = "/", mounts: str = V2
) -> None:
    """A machine whose cgroup v2 is a plain folder."""
    files = {
        "/proc/self/cgroup": f"4:cpu:/other\n0::{own}\n",
        "/proc/self/mountinfo": mounts.format(str(mount).replace(" ", "\\040"), root),
    }
    monkeypatch.setattr(cgroup, "_read", lambda path: files[path].encode())


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").touch()
    return folder


@pytest.mark.parametrize(
    ("own", "root", "home"),
    [
        ("/", "/", ""),
        ("/user.slice/x", "/", "user.slice/x"),
        ("/box/7/in", "/box/7", "in"),
        ("/box/7", "/box/7", ""),
        ("/box/77", "/box/7", ""),
    ],
)
def test_the_folder_is_below_ones_own_cgroup(
    own: str, root: str, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = made(tmp_path / "with space")
    if home:
        made(mount / home)
    system(monkeypatch, mount, own, root, V1 + V2)
    assert cgroup.path("1f") == str(mount / home / "grampus-1f")


def test_the_mount_is_taken_where_ones_own_is_not_to_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = made(tmp_path / "m")
    system(monkeypatch, mount, "/elsewhere")
    assert cgroup.path("1f") == str(mount / "grampus-1f")


def test_without_a_folder_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system(monkeypatch, tmp_path, "/", mounts=V1)
    with pytest.raises(OSError, match=r"no cgroup v2 is mounted"):
        cgroup.path("1f")
    # A folder without a file for processes is nobody's cgroup.
    system(monkeypatch, tmp_path, "/")
    with pytest.raises(OSError, match=rf"not ours to write: {tmp_path}"):
        cgroup.path("1f")


def test_only_ones_own_folder_is_ended() -> None:
    assert cgroup.is_of("/sys/fs/cgroup/grampus-1f", "1f")
    for other in ("", "/", "/sys/fs/cgroup", "grampus-1f", "/sys/fs/cgroup/grampus-2e"):
        assert not cgroup.is_of(other, "1f")
