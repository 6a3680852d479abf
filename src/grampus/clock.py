"""The only reader of time. Everything else takes milliseconds as an argument or holds a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol

#: Bytes that a `struct timex` has at most, and the state of a clock that nothing keeps right.
_TIMEX = 512
_TIME_ERROR = 5


class Clock(Protocol):
    """Two readings, both integer milliseconds, and what the kernel thinks of the first."""

    def now(self) -> int:
        """Wall time since the Unix epoch. For people and for the ledger; may jump."""
        ...

    def ticks(self) -> int:
        """Time since boot, suspend included. For deadlines; never jumps."""
        ...

    def synchronised(self) -> bool:
        """Whether something keeps the wall time right (NTP), says the kernel.

        False when it is set by hand, and when that is not known."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def ticks(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def synchronised(self) -> bool:
        import ctypes  # Only where it is asked for: a command line starts faster without it.

        # A `struct timex` of zeros changes nothing. The answer is the state of the clock.
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX))
        return 0 <= state < _TIME_ERROR
