"""One server of a simulated cluster: a real replica over a real log and ledger, the metadata center
and the clerks that keep the house, over real connections.

Its process is killed or held; what is left of it then is a `SimMachine`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from grampus.answers import decode_answers, encode_answers
from grampus.cluster.desk import KeyDesk
from grampus.cluster.lanes import Lanes
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.consensus.generation import Generation
from grampus.consensus.members import NoMember
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.peers import Peers
from grampus.consensus.pins import Pins
from grampus.consensus.port import Stopped
from grampus.consensus.replica import RaftReplica
from grampus.consensus.snapshots import LEDGER, Installed
from grampus.consensus.steward import Steward
from grampus.consensus.trail import OLDER, Trail
from grampus.database import Database, StorageFailed
from grampus.errors import Diverged, FolderError, Outdated
from grampus.founding import found
from grampus.ledger import Ledger
from grampus.master.office import Clerk
from grampus.master.upgrade import Upgrade
from grampus.protocol import (
    HELLO_FRAME,
    HELLO_TIMEOUT,
    PROTOCOL_VERSION,
    Hello,
    Message,
)
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.server.audit import Audit, AuditRounds
from grampus.server.directory import MemberDirectory
from grampus.server.manners import FAREWELL
from grampus.testing.checked import disturb
from grampus.testing.cluster_watch import ClusterWatch
from grampus.testing.server_machine import SimLedger, SimMachine
from grampus.testing.server_port import PeerRoom, ServerPort
from grampus.testing.steady_clock import SteadyClock
from grampus.testing.world import ProcessLoop, World, current

CLUSTER, HISTORY = "sim", "h1"
Peer = Connection[Message]


class NoisyPeers(Peers):
    """Raft's messages may be lost, doubled or late; each is looked at when it leaves."""

    watch: ClusterWatch
    world: World

    def send(self, to: int, messages: Sequence[bytes], keen: bool = False) -> bool:
        self.watch.sent(self._id, messages)
        if not self.world.noise:
            return super().send(to, messages, keen)
        said, later = super().send, current().call_later
        for message in messages:
            disturb(self.world, later, lambda message=message: said(to, [message], keen))
        return True


class SimAudit(Audit):
    """A process that is killed reads no more."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._readers: list[Database] = []

    def begun(self, index: int, reader: Database) -> None:
        self._readers = [*self._readers[-2:], reader]
        super().begun(index, reader)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


class SimServer:
    """A process of `grampus server`, without API and master."""

    def __init__(self, loop: ProcessLoop, machine: SimMachine) -> None:
        self.loop = loop
        self.machine = machine
        machine.starts += 1
        #: Which process of its machine it is.
        self._instance = machine.starts
        #: The newest apply version of the program that runs.
        self.knows = machine.knows
        self.replica: RaftReplica | None = None
        self.ledger: Ledger | None = None
        #: Highest index that it has applied.
        self.applied = 0
        #: All of it.
        self.task: asyncio.Task[None] | None = None
        self.steward: Steward | None = None
        self._clock = SteadyClock(loop.world, lambda: machine.skew)
        #: Who is heard at its port, while it is open.
        self._lanes: Lanes | None = None
        self._trail: Trail
        #: Closed from last to first, also when it is killed.
        self._files = contextlib.ExitStack()
        loop.dying.append(self._files.close)

    @property
    def name(self) -> str:
        return self.machine.member.name

    def stop(self) -> None:
        """SIGTERM."""
        if self.task is not None:
            self.task.cancel()

    async def run(self, first: bool) -> None:
        """Until it is cancelled or removed, or stops because its disk is full, its program too old
        or its ledger damaged. Whatever else ends it is a bug."""
        machine, world = self.machine, self.loop.world
        machine.disk.was_full = False
        try:
            if first and machine.standing() is None:
                await found(machine.folder, machine.member, HISTORY, disk=machine.disk)
            bits = world.rng.getrandbits
            self._trail = Trail.begin(machine.folder, machine.disk, lambda: bits(63))
            await self._listen()
        except* NoMember as errors:
            older = str(errors.exceptions[0]) == OLDER
            if older and not machine.put_back:
                raise
            world.say(f"{self.name} is told that it was removed, and stops")
            machine.watch.seen["put back" if older else "removed"] += 1
        except* StorageFailed:
            if not machine.disk.was_full:
                raise
            world.say(f"{self.name} stops: its disk is full")
            machine.watch.seen["stopped by a full disk"] += 1
        except* (Outdated, FolderError):
            if not machine.fell_back and machine.member.id in machine.watch.counted:
                raise
            world.say(f"{self.name} stops: its program is too old")
            machine.watch.seen["too old"] += 1
        except* Diverged:
            if not machine.damaged:
                raise
            world.say(f"{self.name} stops: its ledger is damaged")
            machine.watch.seen["diverged"] += 1

    async def _listen(self) -> None:
        async with asyncio.TaskGroup() as group:
            port = ServerPort(lambda: self._lanes)
            server: Server[Message] = Server(
                Codec(Message), port, port.greet, group,
                hello_limit=HELLO_FRAME, hello_timeout=HELLO_TIMEOUT,
            )  # fmt: skip
            await server.start("127.0.0.1", self.machine.member.node_port)
            while True:
                with contextlib.suppress(Installed):
                    await self._serve()
                self.loop.world.say(f"{self.name}: a snapshot is laid down")
                self.machine.watch.seen["snapshot laid down"] += 1

    async def _serve(self) -> None:
        """Until a snapshot is laid down."""
        member, world, watch = self.machine.member, self.loop.world, self.machine.watch
        generation = Generation.current(self.machine.folder)
        generation.sweep()
        path = generation.ledger / LEDGER
        ledger = self.ledger = SimLedger(self.machine, path, self.knows)
        self._files.callback(ledger.close)
        reads = KeyReads(path)
        self._files.callback(reads.close)
        try:
            async with asyncio.TaskGroup() as group:
                peers = NoisyPeers(member.id, self._hello, decode_answers, group, trail=self._trail)
                peers.watch, peers.world = watch, world
                replica = await RaftReplica.open(
                    member.id, generation, ledger, peers,
                    limits=self.machine.settings.limits, kept=self.machine.settings.kept,
                    light=ledger.light, disk=self.machine.disk, seed=world.rng.getrandbits(32),
                )  # fmt: skip
                replica.admit = ledger.admit
                watch.booted(member.id, replica.term, replica.vote)
                keys = ClusterServer(replica, reads, self._clock, HISTORY, world.rng.randbytes)
                self._open(replica, ledger, peers, keys, Pins(group))
                parts = [
                    group.create_task(self._part(work))
                    for work in (
                        keys.run(),
                        self._audit(replica, ledger).run(),
                        self._office(replica, ledger, group),
                        self._until(peers.void),
                        self._trail.run(peers.stamp),
                    )
                ]
                try:
                    await replica.run()
                finally:
                    for part in parts:
                        part.cancel()
                    self.replica = self.steward = self._lanes = None
                    keys.close()
                    peers.close()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._files.close()
            self.ledger = None

    async def _part(self, work: Coroutine[Any, Any, None]) -> None:
        """Why the replica has ended, it says itself."""
        with contextlib.suppress(Stopped):
            await work

    def _open(
        self,
        replica: RaftReplica,
        ledger: SimLedger,
        peers: Peers,
        keys: ClusterServer,
        pins: Pins,
    ) -> None:
        self.replica = replica
        self.steward = Steward(
            replica, peers, self.machine.member, CLUSTER, HISTORY,
            apply_version=lambda: ledger.apply_version, newest=self.knows,
        )  # fmt: skip
        desk = PeerDesk(
            replica, encode_answers, self._hello("control"), self.steward,
            apply_version=lambda: ledger.apply_version, trail=self._trail, pins=pins,
        )  # fmt: skip
        self._lanes = Lanes(PeerRoom(desk, CLUSTER), KeyDesk(keys, MemberDirectory(replica)))

    def _audit(self, replica: RaftReplica, ledger: SimLedger) -> SimAudit:
        member = self.machine.member
        audit = ledger.auditor = SimAudit(
            replica, member.id, member.name, lambda: replica.members.voters, self._clock
        )
        self._files.callback(audit.close)
        return audit

    async def _until(self, void: asyncio.Future[str]) -> None:
        why = await void
        await asyncio.sleep(FAREWELL)
        raise NoMember(why)

    async def _office(
        self, replica: RaftReplica, ledger: SimLedger, group: asyncio.TaskGroup
    ) -> None:
        """Who works while the server leads."""
        steward = self.steward
        assert steward is not None
        common = steward.common_version
        while True:
            await replica.leads()
            term = replica.term
            clerks: list[Clerk] = [
                Upgrade(replica, self._clock, lambda: ledger.apply_version, common),
                AuditRounds(replica, self._clock, lambda: replica.members.voters),
                *([steward] if self.machine.settings.steward else []),
            ]
            work = [group.create_task(clerk.run(term)) for clerk in clerks]
            try:
                await replica.deposed(term)
            finally:
                for task in work:
                    task.cancel()

    def _hello(self, lane: str) -> Hello:
        member, replica = self.machine.member, self.replica
        return Hello(
            PROTOCOL_VERSION, lane, "server", member.name, CLUSTER, "secret", HISTORY, member.id,
            member, self.knows, stamp=self._trail.newest,
            term=0 if replica is None else replica.term,
            last=0 if replica is None else replica.last_index, instance=self._instance,
        )  # fmt: skip
