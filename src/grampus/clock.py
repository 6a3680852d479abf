"""The only reader of time. Everything else takes milliseconds as an argument or holds a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings, both integer milliseconds."""

    def now(self) -> int:
        """Wall time since the Unix epoch. For people and for the ledger; may jump."""
        ...

    def ticks(self) -> int:
        """Time since boot, suspend included. For deadlines; never jumps."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def ticks(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
