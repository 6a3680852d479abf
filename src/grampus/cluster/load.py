"""How busy the machine is for this process, averaged over a minute.

Rule: what a control group allows counts as the machine: half of a quota of two processors, used up
by one, is 50 percent, however many the machine has. Groups are those of cgroup v2; each of them up
to the root may be the tightest.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import psutil
from msgspec import Struct

_ROOT = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")


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
        self._folders = [folder for folder in _folders(root, mine) if folder.is_dir()]

    def look(self) -> Allowance:
        cpus: float | None = None
        used, memory = 0, None
        for folder in self._folders:
            quota = _quota(_text(folder / "cpu.max"))
            if quota is not None and (cpus is None or quota < cpus):
                cpus, used = quota, _used(_text(folder / "cpu.stat"))
            limit = _text(folder / "memory.max").strip()
            if limit.isdigit():
                left = max(0, int(limit) - int(_text(folder / "memory.current") or 0))
                memory = left if memory is None else min(memory, left)
        return Allowance(cpus, used, memory)


class LoadAverage:
    """Sample it once a second."""

    def __init__(self, samples: int = 60, groups: Groups | None = None) -> None:
        self._cpu: deque[float] = deque(maxlen=samples)
        self._memory: deque[int] = deque(maxlen=samples)
        self._groups = groups or Groups()
        psutil.cpu_percent(None)  # The first reading has nothing to compare with.
        self._last = self._groups.look().used, time.monotonic()

    def sample(self) -> None:
        allowed, now = self._groups.look(), time.monotonic()
        (used, before), self._last = self._last, (allowed.used, now)
        cpu = psutil.cpu_percent(None)
        if allowed.cpus and now > before:
            share = (allowed.used - used) / 1e6 / (now - before) / allowed.cpus
            cpu = max(cpu, min(100.0, 100 * share))
        self._cpu.append(cpu)
        self._memory.append(_free(allowed))

    def average(self) -> tuple[int, int]:
        """CPU in percent of the machine, and free memory in bytes."""
        count = len(self._cpu)
        if not count:
            return 0, _free(self._groups.look())
        return round(sum(self._cpu) / count), sum(self._memory) // count


def _free(allowed: Allowance) -> int:
    free: int = psutil.virtual_memory().available
    return free if allowed.memory is None else min(free, allowed.memory)


def _folders(root: Path, mine: Path) -> Iterator[Path]:
    """From the group of this process up to the root."""
    for line in _text(mine).splitlines():
        if line.startswith("0::/"):
            parts = [part for part in line[4:].split("/") if part]
            for count in range(len(parts), -1, -1):
                yield root.joinpath(*parts[:count])


def _quota(text: str) -> float | None:
    """Processors, by `cpu.max`: microseconds of each period, or `max`."""
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
