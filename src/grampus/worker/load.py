"""How busy this machine is, averaged over a minute."""

from __future__ import annotations

from collections import deque

import psutil


class LoadAverage:
    """Sample it once a second."""

    def __init__(self, samples: int = 60) -> None:
        self._cpu: deque[float] = deque(maxlen=samples)
        self._memory: deque[int] = deque(maxlen=samples)
        psutil.cpu_percent(None)  # The first reading has nothing to compare with.

    def sample(self) -> None:
        self._cpu.append(psutil.cpu_percent(None))
        self._memory.append(psutil.virtual_memory().available)

    def average(self) -> tuple[int, int]:
        """CPU in percent of the machine, and free memory in bytes."""
        count = len(self._cpu)
        if not count:
            return 0, psutil.virtual_memory().available
        return round(sum(self._cpu) / count), sum(self._memory) // count
