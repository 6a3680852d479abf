"""Whoever changes the members of a simulated cluster: adds, promotes, removes, replaces, transfers.

Rules: what is not reached is tried again later; no disk is lost before the members of the change
before are known to all that live; a learner is promoted only when it has caught up.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from grampus.consensus.members import MemberChange
from grampus.consensus.replica import RaftReplica
from grampus.consensus.steward import Steward
from grampus.errors import GrampusError
from grampus.protocol import ClusterAsk
from grampus.testing.server import SimServer
from grampus.testing.world import ProcessLoop

if TYPE_CHECKING:
    from grampus.testing.cluster import SimCluster

VOTER, REMOVE, LEARNER = 0, 1, 2
#: A learner that lacks fewer entries than this has caught up.
CLOSE = 10
MOST = 5
Doing = Callable[[], Coroutine[Any, Any, None]]


async def _told(steward: Steward, ask: ClusterAsk) -> None:
    await steward.relay(ask)


class Operator:
    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._busy: ProcessLoop | None = None
        #: A member whose disk is lost, and its name.
        self.lost: tuple[int, str] | None = None

    def act(self, kind: str) -> None:
        """Does it if it can be done now."""
        leader = self._cluster.leader()
        if leader is None or leader.replica is None:
            return
        if self._changing():
            return
        asked = leader
        if self._cluster.settings.steward:
            asked = self._world.rng.choice(self._cluster.open())
            doing = self._ask(kind, leader.replica, asked)
        else:
            doing = self._plan(kind, leader.replica)
        if doing is not None:
            self._busy = asked.loop
            asked.loop.begin(self._do(kind, doing))

    def _changing(self) -> bool:
        return self._busy is not None and self._busy.alive

    async def _do(self, kind: str, doing: Doing) -> None:
        try:
            await doing()
            self._cluster.watch.seen[f"{kind} done"] += 1
            self._world.say(f"{kind} done")
        except (GrampusError, TimeoutError) as error:
            self._world.say(f"{kind} failed: {error}")
        finally:
            self._busy = None

    def _ask(self, kind: str, replica: RaftReplica, asked: SimServer) -> Doing | None:
        """As a person: by the steward of any server; it does the rest."""
        members, rng, steward = replica.members, self._world.rng, asked.steward
        if steward is None:
            return None
        ask: ClusterAsk | None = None
        if kind == "grow" and len(members.known) < MOST:
            ask = ClusterAsk("admit", member=self._cluster.newcomer())
        elif kind == "shrink" and len(members.conf[0]) > 1 and not self.lost:
            ask = ClusterAsk("remove", rng.choice(members.known).name)
        elif kind == "transfer":
            ask = ClusterAsk("transfer", rng.choice(members.known).name)
        elif kind == "replace" and self.lost is not None:
            old, name = self.lost
            if members.find(old) is None:
                self.lost = None if self._cluster.settled() else self.lost
            elif old not in members.lost:
                ask = ClusterAsk("replace", name)
            elif len(members.named(name)) == 1:
                ask = ClusterAsk("admit", member=self._cluster.newcomer(name))
        return None if ask is None else lambda: _told(steward, ask)

    def _plan(self, kind: str, replica: RaftReplica) -> Doing | None:
        members, rng = replica.members, self._world.rng
        voters, learners = members.conf[0], members.conf[1]
        if kind == "transfer":
            to = rng.choice(voters)
            return lambda: replica.transfer(to)
        if members.joint:
            return None
        if kind == "promote":
            ready = [id for id in learners if self._close(replica, id)]
            changes = [(VOTER, id) for id in ready]
            joint = len(changes) > 1 or rng.random() < 0.5
            return self._change(replica, changes, MemberChange(), joint) if changes else None
        if kind == "replace":
            return self._replace(replica)
        if kind == "grow" and len(voters) + len(learners) < MOST:
            member = self._cluster.newcomer()
            return self._change(replica, [(LEARNER, member.id)], MemberChange((member,)), False)
        if kind == "shrink" and len(voters) > 1 and not self.lost:
            gone = rng.choice([*voters, *learners])
            return self._change(replica, [(REMOVE, gone)], MemberChange(), rng.random() < 0.3)
        return None

    def _change(
        self,
        replica: RaftReplica,
        changes: list[tuple[int, int]],
        change: MemberChange,
        joint: bool,
    ) -> Doing:
        return lambda: replica.change_members(changes, change, joint=joint)

    def _close(self, replica: RaftReplica, id: int) -> bool:
        peer = replica.peers.get(id)
        return peer is not None and peer[0] + CLOSE >= replica.commit_index

    def _replace(self, replica: RaftReplica) -> Doing | None:
        """The old id goes, a new one comes under its name."""
        if self.lost is None:
            return None
        old, name = self.lost
        conf = replica.members.conf
        if old in conf[0] or old in conf[1]:
            # Not before its successor is there, so that the number of voters stays.
            new = replica.members.named(name)
            successor = next((m.id for m in new if m.id != old), None)
            if successor is None:
                member = self._cluster.newcomer(name)
                change = MemberChange((member,), (old,))
                return self._change(replica, [(LEARNER, member.id)], change, False)
            if successor in conf[0]:
                return self._change(replica, [(REMOVE, old)], MemberChange(), False)
            if self._close(replica, successor):
                both = [(VOTER, successor), (REMOVE, old)]
                return self._change(replica, both, MemberChange(), True)
            return None
        if self._cluster.settled():
            self.lost = None
        return None

    def lose(self) -> None:
        """A disk is lost for good."""
        cluster = self._cluster
        leader = cluster.leader()
        if self.lost is not None or leader is None or not cluster.quiet() or self._changing():
            return
        assert leader.replica is not None
        members = leader.replica.members
        if len(members.voters) < 3:
            return
        gone = self._world.rng.choice(members.voters)
        member = members.find(gone)
        assert member is not None
        self._world.say(f"the disk of {member.name} is lost")
        cluster.watch.seen["disk lost"] += 1
        self.lost = gone, member.name
        cluster.retire(gone)
