"""A slot whose shim was forked by a prepared process, within the PID namespace of that process.

The warden is not its parent: it has a pidfd of the shim in place of a child. Such a slot has no
place among those of the worker; it borrows that of a cold one for as long as an attempt runs in it.
"""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from grampus.worker.process_tree import descendants
from grampus.worker.slot import Slot

if TYPE_CHECKING:
    from grampus.worker.oven import Oven


class WarmSlot(Slot):
    def __init__(self, number: int, attempts: str, cap: int, mark: str, oven: Oven) -> None:
        super().__init__(number, attempts, cap, mark)
        #: Whose place it has while an attempt runs here.
        self.home: Slot | None = None
        self.oven = oven
        #: Of the shim; None before it said hello, and once it is seen gone.
        self.pidfd: int | None = None

    def condemn(self) -> None:
        super().condemn()
        if self.pidfd is not None:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return

    def reap(self) -> bool:
        """A pidfd says that a process is gone when all of its PID namespace is."""
        if self.pidfd is not None and select.select([self.pidfd], [], [], 0)[0]:
            self.let_go()
        return self.pidfd is None

    def let_go(self) -> None:
        """Nothing of the shim is left, or it is waited for with the namespace around it."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def processes(self) -> list[int]:
        if self.pidfd is None:
            return []
        with open(f"/proc/self/fdinfo/{self.pidfd}") as file:
            pid = next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
        return descendants(pid) if pid > 0 else []
