"""The clock of a simulated machine of a cluster: it never stops, and is a little wrong."""

from __future__ import annotations

from collections.abc import Callable

from grampus.testing.world import World

#: No rate is wrong by more than so many parts of a million; holders of sessions allow for more.
DRIFT = 300


class SteadyClock:
    """Its rate is wrong by up to DRIFT, its wall time by as much as `skew` says, in ms."""

    def __init__(self, world: World, skew: Callable[[], int] = lambda: 0) -> None:
        self._world = world
        self._skew = skew
        self._rate = 1000 * (1 + world.rng.uniform(-DRIFT, DRIFT) / 1e6)

    def now(self) -> int:
        return self._world.now() + self._skew()

    def ticks(self) -> int:
        return int(self._world.time * self._rate)

    def synchronised(self) -> bool:
        return False
