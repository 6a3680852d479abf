"""What control groups allow counts as the machine."""

from __future__ import annotations

from pathlib import Path

from grampus.cluster.load import Allowance, Groups, LoadAverage


def a_group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def groups(root: Path, mine: str) -> Groups:
    (root / "mine").write_text(f"4:memory:/old\n0::{mine}\n")
    return Groups(root, root / "mine")


def test_the_tightest_group_up_to_the_root_counts(tmp_path: Path) -> None:
    a_group(tmp_path, "outer", cpu_max="50000 100000\n", cpu_stat="usage_usec 700\nuser_usec 1\n",
            memory_max="1000\n", memory_current="400\n")  # fmt: skip
    a_group(tmp_path, "outer/inner", cpu_max="max 100000\n", memory_max="max\n")
    assert groups(tmp_path, "/outer/inner").look() == Allowance(0.5, 700, 600)


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    assert groups(tmp_path, "/").look() == Allowance(None, 0, None)
    assert Groups(tmp_path, tmp_path / "none").look() == Allowance(None, 0, None)


def test_memory_beyond_its_limit_is_none_left(tmp_path: Path) -> None:
    a_group(tmp_path, "g", memory_max="10", memory_current="12")
    assert groups(tmp_path, "/g").look().memory == 0


def test_the_average_is_over_the_newest_samples(tmp_path: Path) -> None:
    a_group(tmp_path, "g", memory_max="1000", memory_current="0")
    load = LoadAverage(2, groups(tmp_path, "/g"))
    assert load.average() == (0, 1000)
    for used in (800, 400, 200):
        a_group(tmp_path, "g", memory_current=str(used))
        load.sample()
    assert load.average()[1] == 700
