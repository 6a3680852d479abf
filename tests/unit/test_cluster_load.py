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


def test_a_part_of_what_the_groups_allow_can_be_told(tmp_path: Path) -> None:
    a_group(tmp_path, "outer", memory_max="1000", memory_current="400")
    a_group(tmp_path, "outer/inner", cpu_max="50000 100000", memory_max="2000", memory_current="1")
    load = LoadAverage(2, groups(tmp_path, "/outer/inner"))
    assert load.capacity() == (0.5, 1000)
    cpus, memory = LoadAverage(2, Groups(tmp_path, tmp_path / "none")).capacity()
    assert cpus >= 1
    assert memory > load.average()[1]


def older(root: Path, memory: str, cpu: str) -> Groups:
    """Groups of cgroup v1, beside a tree of v2 that has no controllers."""
    (root / "mine").write_text(f"9:name=systemd:/\n4:memory:{memory}\n2:cpu,cpuacct:{cpu}\n0::/\n")
    return Groups(root, root / "mine")


def test_the_groups_of_the_older_kind_count_too(tmp_path: Path) -> None:
    a_group(tmp_path, "memory/a", memory_limit_in_bytes="1000\n", memory_usage_in_bytes="300\n")
    a_group(tmp_path, "memory", memory_limit_in_bytes="9223372036854771712\n")
    a_group(tmp_path, "cpu/b/c", cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    a_group(tmp_path, "cpu/b", cpu_cfs_quota_us="150000\n", cpu_cfs_period_us="100000\n")
    a_group(tmp_path, "cpuacct/b", cpuacct_usage="2000000\n")
    assert older(tmp_path, "/a", "/b/c").look() == Allowance(1.5, 2000, 700)
    # A container sees its own group as the root.
    a_group(tmp_path, "memory", memory_limit_in_bytes="500", memory_usage_in_bytes="100")
    assert older(tmp_path, "/docker/x", "/docker/x").look() == Allowance(None, 0, 400)


def test_the_groups_of_both_kinds_together(tmp_path: Path) -> None:
    a_group(tmp_path, "memory/a", memory_limit_in_bytes="1000", memory_usage_in_bytes="300")
    a_group(tmp_path, "", memory_max="600", memory_current="0")
    assert older(tmp_path, "/a", "/").look().memory == 600
