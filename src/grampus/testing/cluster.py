"""Several servers under faults, from a seed: `python -m grampus.testing.cluster --seed N`.

For a while users read and write, clients keep sessions, locks and watches, an operator changes the
members or brings the next version, and processes, power, disks and connections fail; then nothing
fails any more, and within a bound of virtual time all servers agree and answer. `ClusterWatch` and
`KeysWatch` look at every step, and a checker at what the users were told.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grampus.cluster import client as cluster_client
from grampus.cluster import feed, keyspace, retention
from grampus.cluster.core.route import Address
from grampus.consensus import peers as consensus_peers
from grampus.consensus.members import Members
from grampus.consensus.turns import Kept
from grampus.consensus.writer import Limits
from grampus.model.member import Member
from grampus.rpc import server as rpc_server
from grampus.server import audit
from grampus.testing import next_version
from grampus.testing.cluster_clients import Clients
from grampus.testing.cluster_faults import FAULTS, Faults
from grampus.testing.cluster_operator import Operator
from grampus.testing.cluster_rollout import Rollout
from grampus.testing.cluster_users import Users
from grampus.testing.cluster_watch import ClusterWatch
from grampus.testing.linearizability import assert_linearizable
from grampus.testing.seeds import Outcome, play, report
from grampus.testing.server import SimServer
from grampus.testing.server_machine import Settings, SimMachine
from grampus.testing.wire import Port
from grampus.testing.world import World

#: Virtual seconds within which a healed cluster is whole again.
PATIENCE = 90.0
MODULE = "grampus.testing.cluster"
NAMES = "abcdefghijklmnopqrstuvwxyz"


@contextlib.contextmanager
def simulated(world: World, settings: Settings) -> Iterator[None]:
    """The drivers find the simulated world, and small bounds, in the place of the real ones."""
    swaps: list[tuple[Any, str, Any]] = [
        (rpc_server, "_listen", lambda _, port: Port(port)),
        (consensus_peers, "random", world.rng),
        (cluster_client, "random", world.rng),
        (keyspace, "HISTORY_ROWS", settings.history),
        (keyspace, "SLACK_ROWS", 3),
        (feed, "RECENT", settings.recent),
        (audit, "EVERY", settings.audit),
        (audit, "WORK", float("inf")),  # nobody else is there for whom it could rest
        (retention, "EVERY", settings.retain),
    ]
    before = [getattr(module, name) for module, name, _ in swaps]
    try:
        for module, name, value in swaps:
            setattr(module, name, value)
        with next_version.known():
            yield
    finally:
        for (module, name, _), value in zip(swaps, before, strict=True):
            setattr(module, name, value)


def chosen(world: World) -> Settings:
    """Bounds that differ from seed to seed."""
    rng = world.rng
    return Settings(
        Limits(
            checkpoint_entries=rng.choice([5, 20, 50]),
            checkpoint_idle=rng.choice([0.1, 0.5]),
            entry_commands=rng.choice([3, 500]),
            quick=0.0,  # the time that it takes is not simulated
        ),
        Kept(
            entries=rng.choice([3, 20, 100]),
            size=rng.choice([20_000, 64 * 1024 * 1024]),
            segment=rng.choice([2_000, 100_000]),
        ),
        steward=rng.random() < 0.5,
        history=rng.choice([5, 50, 100_000]),
        recent=rng.choice([4, 8192]),
        audit=rng.choice([1.0, 4.0, 20.0]),
        retain=3.0,
        upgrade=rng.random() < 0.5,
    )


class SimCluster:
    def __init__(self, seed: int, folder: Path) -> None:
        self.world = World(seed)
        self.watch = ClusterWatch(self.world)
        self.folder = folder
        self.machines: dict[int, SimMachine] = {}
        self.servers: dict[int, SimServer] = {}
        #: How many voters there are to be at first.
        self.settings = chosen(self.world)
        # A steward makes no cluster of two.
        few = 3 if self.settings.steward else 2
        self.size = self.world.rng.choice([1, few, 3, 3, 3, 5])
        self.users = Users(self.world, self.watch, self.open)
        self.clients = Clients(self.world, self.watch.keys, self._addresses)
        self.operator = Operator(self)
        self.rollout = Rollout(self)
        self._ids = 0
        self._faults = Faults(self)
        self._probes = 0

    def run(self) -> None:
        world = self.world
        with simulated(world, self.settings):
            try:
                self.grow()
                self.clients.begin()
                self._faults.plan(world.time)
                if self.settings.upgrade:
                    self.rollout.plan()
                world.run(world.time + FAULTS, self._look)
                world.say("no more faults")
                self._faults.mend()
                self._again()
                world.run(world.time + PATIENCE, lambda: self._look() or not self.restless())
                left = self.restless()
                assert not left, f"after {PATIENCE:g} s without faults: {left}"
                self._check()
            finally:
                self.close()

    def close(self) -> None:
        """Nothing goes on, and no file stays open."""
        self.world.close()
        for machine in self.machines.values():
            machine.disk.forget()

    def _look(self) -> bool:
        self.watch.look([s.replica for s in self.servers.values() if s.replica is not None])
        for server in self.servers.values():
            replica = server.replica
            if replica is not None:
                assert replica.applied_index >= server.applied, f"{server.name} goes back"
                server.applied = replica.applied_index
        assert not (late := self.users.late()), f"no answer to {late}"
        self.clients.look()
        return False

    # -- servers ----------------------------------------------------------------------------------

    def open(self) -> list[SimServer]:
        return [server for server in self.servers.values() if server.replica is not None]

    def _addresses(self) -> list[Address]:
        """Of the members that there are; of all machines, when nobody leads."""
        leader = self.leader()
        known = () if leader is None or leader.replica is None else leader.replica.members.known
        members = known or [machine.member for machine in self.machines.values()]
        there = [member for member in members if member.id in self.machines]
        return [(member.host, member.node_port) for member in there]

    def leader(self) -> SimServer | None:
        """Of the newest term that has one."""
        leading = [s for s in self.open() if s.replica is not None and s.replica.leader]
        return max(leading, key=lambda s: s.replica.term if s.replica else 0, default=None)

    def newest_term(self) -> int:
        return max((s.replica.term for s in self.open() if s.replica is not None), default=0)

    def quiet(self) -> bool:
        """It is settled, and no change is in any log that might be committed yet."""
        leader = self.leader()
        if leader is None or leader.replica is None or not self.settled():
            return False
        commit = leader.replica.commit_index
        return leader.replica.term == self.newest_term() and all(
            server.replica is not None and server.replica.last_index <= commit
            for server in self.open()
        )

    def settled(self) -> bool:
        """All members live and know the same members."""
        leader = self.leader()
        if leader is None or leader.replica is None or leader.replica.members.joint:
            return False
        conf = leader.replica.members.conf
        for id in [*conf[0], *conf[1]]:
            server = self.servers.get(id)
            if server is None or server.replica is None:
                return False
            if server.replica.members.conf != conf:
                return False
        return True

    def newcomer(self, name: str = "") -> Member:
        """A new machine, with a process that waits to be taken up."""
        self._ids += 1
        id = self._ids
        member = Member(id, name or NAMES[id % 26], "127.0.0.1", 7000 + id, 8000 + id)
        folder = self.folder / str(id)
        machine = SimMachine(self.world, self.watch, member, folder, self.settings)
        machine.knows = self.rollout.newest
        self.machines[id] = machine
        self.start(id)
        return member

    def start(self, id: int) -> None:
        machine = self.machines.get(id)
        if machine is None or id in self.servers:
            return
        self.world.say(f"{machine.member.name} starts")
        leader = self.leader()
        if leader is not None and leader.replica is not None and machine.new:
            # As the servers that it was told of would say.
            machine.introduce(Members(known=leader.replica.members.known))
        loop = self.world.process(machine.member.name)
        server = self.servers[id] = SimServer(loop, machine)
        machine.disk.blown = lambda: self._blown(id)
        server.task = task = loop.begin(server.run(id == 1))
        task.add_done_callback(lambda _: self._ended(server))

    def _ended(self, server: SimServer) -> None:
        """Its process is over by itself."""
        if server.loop.alive and server.loop.broken is None:
            self.world.after(0.0, lambda: self._gone(server, False))

    def _blown(self, id: int) -> None:
        self.watch.seen["power cut in a call"] += 1
        self.kill(id, power=True)

    def kill(self, id: int, power: bool = False) -> None:
        if (server := self.servers.get(id)) is not None:
            self._gone(server, power)

    def _gone(self, server: SimServer, power: bool) -> None:
        id = server.machine.member.id
        if self.servers.get(id) is not server:
            return
        del self.servers[id]
        self.users.forget(server)
        self.world.kill(server.loop)
        server.machine.disk.fuse = None
        server.machine.crash(power)
        self.start_soon(id)

    def start_soon(self, id: int) -> None:
        self.world.after(self.world.rng.choice([0.01, 0.5, 3.0, 8.0]), lambda: self.start(id))

    def retire(self, id: int) -> None:
        """Machine and disk are gone."""
        machine = self.machines.pop(id)
        if (server := self.servers.get(id)) is not None:
            self._gone(server, False)
        shutil.rmtree(machine.folder)

    # -- the beginning and the end ----------------------------------------------------------------

    def grow(self) -> None:
        """Founds, and lets others join until there are as many voters as wanted."""
        world = self.world
        self.newcomer()
        world.run(5.0, lambda: self._look() or self.leader() is not None)
        for _ in range(60):
            leader = self.leader()
            if leader is None or leader.replica is None:
                world.run(world.time + 0.5, self._look)
                continue
            conf = leader.replica.members.conf
            if len(conf[0]) >= self.size and not leader.replica.members.joint:
                return
            self.operator.act("promote" if len(conf[0]) + len(conf[1]) >= self.size else "grow")
            world.run(world.time + 0.5, self._look)
        raise AssertionError(f"{self.size} servers do not come together")

    def _again(self) -> None:
        for id in list(self.machines):
            self.start(id)
        self.operator.act("replace" if self.operator.lost else "promote")
        self.rollout.finish()
        self.clients.rest()
        self.world.after(1.0, self._again)

    def restless(self) -> str:
        """What is not as it must be in the end; "" when all is."""
        leader = self.leader()
        if leader is None or leader.replica is None:
            return "nobody leads"
        replica = leader.replica
        if self.operator.lost is not None:
            return f"{self.operator.lost} is not replaced"
        if not self.settled():
            return f"not all know that the members are {replica.members.conf}"
        if replica.members.learners and not self.settings.steward:
            return f"learners {replica.members.learners} are not promoted"
        for id in replica.members.voters:
            server = self.servers[id]
            assert server.replica is not None
            applied, last = server.replica.applied_index, replica.last_index
            if not applied == last == replica.commit_index:
                return f"{server.name} has applied {applied} of {last}"
        if self.users.asking:
            return f"no answer to {sorted(self.users.asking)}"
        if left := self.rollout.restless(replica.members.voters) or self.clients.restless():
            return left
        return self._probe(replica.members)

    def _probe(self, members: Members) -> str:
        """In the end every member takes a write and a read."""
        if self._probes == 2 * len(members.voters):
            return ""
        server = self.servers[members.voters[self._probes // 2]]
        self._probes += 1
        self.users.begin("probe", server, "put" if self._probes % 2 else "get", b"k0")
        return "the probes are not done"

    def _check(self) -> None:
        leader = self.leader()
        assert leader is not None
        assert leader.replica is not None
        for id in leader.replica.members.voters:
            ledger = self.servers[id].ledger
            assert ledger is not None
            assert ledger.applied_index >= self.watch.last, "what was applied is lost"
            self.watch.content(self.servers[id].name, ledger.applied_index, ledger.checksum())
        assert_linearizable(self.users.finished())


def run_seed(seed: int) -> Outcome:
    """Plays one seed to its end or to what is wrong."""
    shm = Path("/dev/shm")
    return play(SimCluster, seed, shm if shm.is_dir() else None)


if __name__ == "__main__":
    sys.exit(report(MODULE, __doc__, run_seed))
