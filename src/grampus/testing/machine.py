"""A model of a machine: what its processes share, and what of them survives.

A machine that sleeps stands still, but for its clock; one that is rebooted has nothing of before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grampus.testing.watch import Watch
from grampus.testing.world import World

if TYPE_CHECKING:
    from grampus.testing.warden import Warden

#: Between two looks at the leases, in seconds.
VIGIL = 0.5


class Machine:
    """What processes share: the boot, and what runs. An attempt takes at most one of `lasts`, in
    seconds."""

    def __init__(
        self,
        world: World,
        watch: Watch,
        folder: Path,
        lasts: Sequence[float] = (0.002, 0.2, 2.0, 15.0),
    ) -> None:
        self.world = world
        self.lasts = lasts
        self.watch = watch
        self.folder = folder
        self.boots = 1
        #: All of it stands still until then, but for the clock.
        self.asleep_until = 0.0
        self.wardens: list[Warden] = []
        self._instances = 0

    def boot_id(self) -> str:
        return f"boot{self.boots}"

    def instance(self) -> str:
        self._instances += 1
        return f"warden{self._instances}"

    def when_awake(self, do: Callable[[], None]) -> bool:
        """Whether it is; else that is done once it is."""
        if self.asleep_until <= self.world.time:
            return True
        self.world.after(self.asleep_until - self.world.time, do)
        return False

    def overslept(self) -> bool:
        """What runs here had no chance to be ended in time: it stood still, or did until now."""
        return self.world.time < self.asleep_until + 2 * VIGIL

    @property
    def quiet(self) -> bool:
        """Nothing of any warden lives."""
        return not any(warden.alive or warden.attempts for warden in self.wardens)

    def reboot(self) -> None:
        for warden in self.wardens:
            warden.vanish()
        self.wardens.clear()
        self.boots += 1
