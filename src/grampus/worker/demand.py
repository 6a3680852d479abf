"""Which modules are worth a prepared process, and which start cold for a while.

Rule: a module is worth one when it is wanted twice within IDLE, and is not declined. Both tables
are bounded: of what is longest ago nothing is known. How many there may be is left to `stock`. Time
is monotonic milliseconds.
"""

from __future__ import annotations

#: A prepared process without attempts ends after so long. A module is prepared when it is wanted
#: twice within it.
IDLE = 60_000
#: After a decline a module starts cold for so long.
DECLINED_FOR = 600_000
_REMEMBERED = 256
#: Module, bundle, environment of the import.
Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Demand:
    def __init__(self) -> None:
        #: When a key was wanted last.
        self._wanted: dict[Key, int] = {}
        #: Until when it starts cold.
        self._declined: dict[Key, int] = {}

    def want(self, key: Key, now: int) -> bool:
        """Whether it is worth a prepared process."""
        before = self._wanted.get(key)
        _remember(self._wanted, key, now)
        return before is not None and now - before <= IDLE and key not in self._declined

    def decline(self, key: Key, now: int) -> None:
        _remember(self._declined, key, now + DECLINED_FOR)

    def beat(self, now: int) -> None:
        """From time to time: what was declined has another chance."""
        for key in [key for key, until in self._declined.items() if until <= now]:
            del self._declined[key]


def _remember(table: dict[Key, int], key: Key, at: int) -> None:
    """As the newest one."""
    table.pop(key, None)
    table[key] = at
    if len(table) > _REMEMBERED:
        del table[next(iter(table))]
