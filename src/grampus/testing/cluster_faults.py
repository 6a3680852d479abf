"""What befalls a simulated cluster: chosen by the seed, several at once, and mended in the end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from grampus.testing.server import SimServer

if TYPE_CHECKING:
    from grampus.testing.cluster import SimCluster

#: Virtual seconds of faults.
FAULTS = 30.0
FAULT_KINDS = (
    "break", "kill", "power", "fuse", "full", "hold", "cut", "oneway", "noise", "slow", "clock",
    "stop", "blackout", "leader", "stale", "client",
)  # fmt: skip
ACTS = ("grow", "promote", "promote", "shrink", "transfer", "lose", "replace", "replace")
CLIENTS = 4


class Faults:
    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._over = False

    def plan(self, start: float) -> None:
        world, cluster = self._world, self._cluster
        # Of the seed alone: what is planned stays the same when the servers ask for other chances.
        rng = random.Random(f"plan {world.seed}")
        until = FAULTS
        at = 0.0
        pace = rng.choice([0.02, 0.1, 0.4])
        while at < until:
            name = f"user{rng.randrange(CLIENTS)}"
            world.after(at, lambda name=name: cluster.users.act(name))  # type: ignore[misc]
            at += rng.expovariate(1 / pace)
        chosen = rng.sample(FAULT_KINDS, rng.randint(1, 5))
        at = rng.uniform(0, 4)
        for _ in range(rng.randint(0, 20)):
            kind = rng.choice(chosen)
            world.after(at, lambda kind=kind: self.fault(kind))  # type: ignore[misc]
            # Some come together: in the middle of what mends the one before.
            at += rng.uniform(0, rng.choice([0.01, 0.5, 6.0]))
            if at >= until:
                break
        at = rng.uniform(0, 4)
        pace = rng.choice([1.0, 4.0, 60.0])
        while at < until:
            act = rng.choice(ACTS)
            world.after(at, lambda act=act: self._act(act))  # type: ignore[misc]
            at += rng.uniform(0, pace)

    def _act(self, kind: str) -> None:
        if self._over:
            return
        if kind == "lose":
            self._cluster.operator.lose()
        else:
            self._cluster.operator.act(kind)

    def fault(self, kind: str) -> None:
        if self._over:
            return
        cluster, world, rng = self._cluster, self._world, self._world.rng
        servers = list(cluster.servers.values())
        if not servers:
            return
        server = rng.choice(servers)
        world.say(f"fault: {kind} ({server.name})")
        cluster.watch.seen[f"fault {kind}"] += 1
        match kind:
            case "break":
                if world.wires:
                    rng.choice(world.wires).break_()
            case "kill":
                cluster.kill(server.machine.member.id)
            case "power":
                cluster.kill(server.machine.member.id, power=True)
            case "blackout":
                for one in servers:
                    cluster.kill(one.machine.member.id, power=True)
            case "leader":
                self._at_the_leader()
            case "stale":
                self._leave_behind()
            case "stop":
                server.stop()
            case "client":
                self._at_a_client()
            case "clock":
                server.machine.skew += rng.choice([-3_600_000, -2_000, 5_000, 86_400_000])
            case "cut" | "oneway":
                self._part(kind)
                if leader := cluster.leader():
                    self._burst(leader)
            case _:
                self._to_one(kind, server)

    def _to_one(self, kind: str, server: SimServer) -> None:
        world, rng, disk = self._world, self._world.rng, server.machine.disk
        match kind:
            case "fuse":
                disk.fuse = rng.randint(0, 15)
            case "full":
                disk.room = rng.randint(0, 5)
                world.after(rng.uniform(1, 12), lambda: setattr(disk, "room", None))
            case "hold":
                server.loop.held_until = world.time + rng.choice([0.1, 2.0, 15.0, 60.0])
            case "noise":
                world.noise = rng.choice([0.02, 0.1, 0.4])
                world.after(rng.uniform(1, 15), lambda: setattr(world, "noise", 0.0))
            case "slow" if rng.random() < 0.3:
                server.loop.hung_until = world.time + rng.choice([1.0, 3.0, 12.0])
                self._cluster.watch.seen["disk hangs"] += 1
            case "slow":
                server.loop.lag = rng.choice([0.05, 0.3, 1.5])
                world.after(rng.uniform(1, 10), lambda: setattr(server.loop, "lag", 0.0))

    def _at_the_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is None:
            return
        match self._world.rng.choice(["kill", "hold", "cut"]):
            case "kill":
                self._cluster.kill(leader.machine.member.id)
            case "hold":
                leader.loop.held_until = self._world.time + self._world.rng.choice([1.0, 4.0])
            case "cut":
                self._apart({leader.name})
                self._burst(leader)

    def _leave_behind(self) -> None:
        """The leader stands still. When it wakes another leads, of whom it does not hear, and one
        client is left to talk to it."""
        rng, leader = self._world.rng, self._cluster.leader()
        if leader is not None:
            self._apart({leader.name, rng.choice(self._cluster.clients.names)})
            leader.loop.held_until = self._world.time + rng.choice([1.5, 2.0, 3.0])

    def _at_a_client(self) -> None:
        rng, clients = self._world.rng, self._cluster.clients
        name = rng.choice(clients.names)
        loop = clients.all[name].loop
        match rng.choice(["kill", "hold", "cut", "wires"]):
            case "kill":
                clients.kill(name)
            case "hold":
                loop.held_until = self._world.time + rng.choice([0.5, 2.0, 6.0])
            case "cut":
                self._apart({name})
            case "wires":
                for wire in [wire for wire in self._world.wires if wire.loop is loop]:
                    wire.break_()

    def _burst(self, server: SimServer) -> None:
        """Some ask just that one: it does not know yet that it is alone."""
        world, users = self._world, self._cluster.users
        for number in range(world.rng.randint(0, 8)):
            kind = world.rng.choice(["put", "swap", "get"])
            world.after(
                world.rng.uniform(0, 1.0),
                lambda number=number, kind=kind: users.ask(f"late{number}", server, kind),  # type: ignore[misc]
            )

    def _part(self, kind: str) -> None:
        rng, names = self._world.rng, self._names()
        some = set(rng.sample(names, rng.randint(1, max(1, len(names) - 1))))
        if kind == "cut":
            self._apart(some)
            return
        others = [name for name in names if name not in some]
        pairs = {(a, b) for a in some for b in others}
        self._world.oneway |= pairs
        self._heal_soon(lambda: self._world.oneway.difference_update(pairs))

    def _names(self) -> list[str]:
        """Of those between whom something may stand: the servers, and maybe the clients."""
        cluster = self._cluster
        names = [machine.member.name for machine in cluster.machines.values()]
        return names + cluster.clients.names if self._world.rng.random() < 0.5 else names

    def _apart(self, some: set[str]) -> None:
        others = [name for name in self._names() if name not in some]
        pairs = {frozenset((a, b)) for a in some for b in others}
        self._world.partition |= pairs
        self._heal_soon(lambda: self._world.partition.difference_update(pairs))

    def _heal_soon(self, heal: object) -> None:
        assert callable(heal)
        self._world.after(self._world.rng.choice([0.3, 2.0, 8.0, 30.0]), heal)

    def mend(self) -> None:
        self._over = True
        world = self._world
        world.noise = 0.0
        world.partition.clear()
        world.oneway.clear()
        self._cluster.users.patient()
        for loop in world.loops:
            loop.held_until = loop.lag = loop.drag = loop.hung_until = 0.0
        for machine in self._cluster.machines.values():
            machine.disk.room = machine.disk.fuse = None
