"""How busy the machine is for this process, averaged over a minute, and how large it is.

Rule: what a control group allows counts as the machine: half of a quota of two processors, used up
by one, is 50 percent, however many the machine has. Each group up to the root may be the tightest.
With cgroup v2 there is one tree of groups, with v1 each controller has its own, and some machines
use both.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import psutil
from msgspec import Struct

log = logging.getLogger("grampus.cluster")

_ROOT = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")
#: What cgroup v1 says instead of a limit is about 2^63.
_UNLIMITED = 2**60


class Allowance(Struct, frozen=True):
    """What the groups of a process allow and have used; None where they set no limit."""

    #: Processors, and microseconds that the group with that limit has used.
    cpus: float | None
    used: int
    #: Bytes that are left.
    memory: int | None


class Groups:
    """The groups of this process. It is not moved to others later."""

    def __init__(self, root: Path = _ROOT, mine: Path = _MINE) -> None:
        trees = dict(_trees(mine))
        self._folders = _folders(root, trees.get("", ""))
        self._cpu = _folders(root / "cpu", trees.get("cpu"))
        self._accounts = root / "cpuacct"
        self._memory = _folders(root / "memory", trees.get("memory"))
        self._root = root

    def look(self) -> Allowance:
        quotas, memory = [], []
        for folder in self._folders:
            if (quota := _quota(_text(folder / "cpu.max"))) is not None:
                quotas.append((quota, _used(_text(folder / "cpu.stat"))))
            memory.append(_left(folder / "memory.max", folder / "memory.current"))
        for folder in self._cpu:
            period = _text(folder / "cpu.cfs_period_us")
            quota = _quota(_text(folder / "cpu.cfs_quota_us").strip() + " " + period)
            if quota is not None:
                account = self._accounts / folder.relative_to(self._root / "cpu") / "cpuacct.usage"
                quotas.append((quota, int(_text(account) or 0) // 1000))
        for folder in self._memory:
            names = "memory.limit_in_bytes", "memory.usage_in_bytes"
            memory.append(_left(folder / names[0], folder / names[1]))
        cpus, used = min(quotas, key=lambda each: each[0], default=(None, 0))
        return Allowance(cpus, used, min((m for m in memory if m is not None), default=None))

    def most_memory(self) -> int | None:
        """Bytes that the tightest group may have in all; None without a limit."""
        limits = [_limit(folder / "memory.max") for folder in self._folders]
        limits += [_limit(folder / "memory.limit_in_bytes") for folder in self._memory]
        return min((each for each in limits if each is not None), default=None)


class LoadAverage:
    """Sample it once a second."""

    def __init__(self, samples: int = 60, groups: Groups | None = None) -> None:
        self._cpu: deque[float] = deque(maxlen=samples)
        self._memory: deque[int] = deque(maxlen=samples)
        self._groups = groups or Groups()
        psutil.cpu_percent(None)  # The first reading has nothing to compare with.
        self._last = self._groups.look().used, time.monotonic()

    def sample(self) -> None:
        try:
            self._sample()
        except OSError as error:  # no file can be opened just now: one sample less
            log.warning("how busy this machine is cannot be told: %s", error)

    def _sample(self) -> None:
        allowed, now = self._groups.look(), time.monotonic()
        (used, before), self._last = self._last, (allowed.used, now)
        cpu = psutil.cpu_percent(None)
        if allowed.cpus and now > before:
            share = (allowed.used - used) / 1e6 / (now - before) / allowed.cpus
            cpu = max(cpu, min(100.0, 100 * share))
        self._cpu.append(cpu)
        self._memory.append(_free(allowed))

    def capacity(self) -> tuple[float, int]:
        """Of what `average` is a part: processors, and bytes of memory."""
        cpus, most = self._groups.look().cpus, self._groups.most_memory()
        memory: int = psutil.virtual_memory().total
        return cpus or psutil.cpu_count() or 1, memory if most is None else min(memory, most)

    def average(self) -> tuple[int, int]:
        """CPU in percent of the machine, and free memory in bytes."""
        count = len(self._cpu)
        if not count:
            return 0, _free(self._groups.look())
        return round(sum(self._cpu) / count), sum(self._memory) // count


def _free(allowed: Allowance) -> int:
    free: int = psutil.virtual_memory().available
    return free if allowed.memory is None else min(free, allowed.memory)


def _trees(mine: Path) -> Iterator[tuple[str, str]]:
    """By controller: the group of this process. That of cgroup v2 has no name."""
    for line in _text(mine).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, path


def _folders(root: Path, group: str | None) -> list[Path]:
    """From that group up to the root; a container sees those below its own only."""
    if group is None:
        return []
    parts = [part for part in group.split("/") if part]
    folders = [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
    return [folder for folder in folders if folder.is_dir()]


def _limit(limit: Path) -> int | None:
    """Bytes, or None without a limit."""
    most = _text(limit).strip()
    return int(most) if most.isdigit() and int(most) < _UNLIMITED else None


def _left(limit: Path, used: Path) -> int | None:
    """Bytes, or None without a limit."""
    most = _limit(limit)
    return None if most is None else max(0, most - int(_text(used) or 0))


def _quota(text: str) -> float | None:
    """Processors, by `cpu.max`: microseconds of each period, or `max` (or -1) for no limit."""
    quota, _, period = text.strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _used(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1])
    return 0


def _text(path: Path) -> str:
    """Empty for what is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""
