"""Whoever brings the next version to a simulated cluster: one machine after the other gets it, at
its next start, in the middle of everything else; and some get the old one back for a while.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from grampus.testing.next_version import NEXT
from grampus.testing.server_machine import SimMachine
from grampus.versions import FIRST

if TYPE_CHECKING:
    from grampus.testing.cluster import SimCluster

#: Virtual seconds within which it is shipped, and between two machines at most.
SHIPPED, PACE = 15.0, 3.0
#: Share of the machines that get the old program back, and the seconds that they have it.
BACK, BACK_FOR = 0.15, 6.0


class Rollout:
    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        #: What new machines come with.
        self.newest = FIRST

    def plan(self) -> None:
        self._world.after(self._world.rng.uniform(0, SHIPPED), self._ship)

    def _ship(self) -> None:
        self._world.say("the next version is there")
        self.newest = NEXT
        self._go_on()

    def _go_on(self) -> None:
        rng = self._world.rng
        behind = [m for m in self._cluster.machines.values() if m.knows < self.newest]
        if not behind:
            return
        machine = rng.choice(behind)
        self._install(machine, NEXT)
        if rng.random() < BACK:
            self._world.after(rng.uniform(0, PACE), lambda: self._fall_back(machine))
        self._world.after(rng.uniform(0, PACE), self._go_on)

    def _fall_back(self, machine: SimMachine) -> None:
        machine.fell_back = True
        self._cluster.watch.seen["fell back"] += 1
        self._install(machine, FIRST)
        self._world.after(
            self._world.rng.uniform(0, BACK_FOR), lambda: self._install(machine, NEXT)
        )

    def _install(self, machine: SimMachine, version: int) -> None:
        """And starts it again."""
        self._world.say(f"{machine.member.name} gets version {version}")
        machine.knows = version
        server = self._cluster.servers.get(machine.member.id)
        if server is not None and server.knows != version:
            server.stop()

    def finish(self) -> None:
        """What has begun comes everywhere."""
        for machine in self._cluster.machines.values():
            server = self._cluster.servers.get(machine.member.id)
            if machine.knows != self.newest or (server and server.knows != self.newest):
                self._install(machine, self.newest)

    def restless(self, voters: Iterable[int]) -> str:
        for server in (self._cluster.servers[id] for id in voters):
            if server.ledger is not None and server.ledger.apply_version != self.newest:
                return f"the ledger of {server.name} is not at version {self.newest}"
        return ""
