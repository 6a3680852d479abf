"""One step of the core while it is made: its time, and what it asks of the driver.

Rule: what must be written down comes first, for nothing else may happen without it; which ends the
warden may forget comes last. What is asked for is left to those who decide.
"""

from __future__ import annotations

from grampus.worker.core.instructions import Forgo, Instruction, LogLine, Record
from grampus.worker.core.memory import Entry, Opened


class Step:
    """All parts of a core have the same one, from step to step."""

    def __init__(self) -> None:
        #: Wall milliseconds.
        self.now = 0
        self._out: list[Instruction] = []
        self._entries: list[Entry] = []
        self._taken: list[int] = []

    def ask(self, instruction: Instruction) -> None:
        self._out.append(instruction)

    def write(self, entry: Entry) -> None:
        if isinstance(entry, Opened):
            self._entries.clear()  # It makes all that was written before void.
        self._entries.append(entry)

    def take(self, n: int) -> None:
        """The warden need not keep the end of `n` any longer."""
        self._taken.append(n)

    def warn(self, text: str) -> None:
        self._out.append(LogLine("warning", text))

    def finish(self) -> list[Instruction]:
        out, self._out = self._out, []
        if self._taken:
            out.append(Forgo(tuple(self._taken)))
            self._taken = []
        if self._entries:
            out.insert(0, Record(tuple(self._entries)))
            self._entries = []
        return out
