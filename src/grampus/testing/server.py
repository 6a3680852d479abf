"""One server of a simulated cluster: a real replica over a real log and ledger, real connections.

Its machine is played: disk and ledger lose what a power cut takes, its process is killed or held.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from grampus.answers import decode_answers, encode_answers
from grampus.consensus.generation import Generation
from grampus.consensus.introduction import introduce
from grampus.consensus.log import DurableLog
from grampus.consensus.members import Members, NoMember
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.peers import Peers
from grampus.consensus.port import Stopped
from grampus.consensus.replica import RaftReplica
from grampus.consensus.snapshots import LEDGER, Installed
from grampus.consensus.steward import Steward
from grampus.consensus.trail import OLDER, Trail
from grampus.consensus.turns import Kept
from grampus.consensus.writer import Limits
from grampus.database import StorageFailed
from grampus.errors import NotLeader
from grampus.founding import Standing, found, standing
from grampus.ledger import Ledger
from grampus.model.member import Member
from grampus.protocol import HELLO_FRAME, HELLO_TIMEOUT, PROTOCOL_VERSION, Goodbye, Hello, Message
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.testing.checked import disturb
from grampus.testing.cluster_watch import ClusterWatch
from grampus.testing.disk import SimDisk
from grampus.testing.world import ProcessLoop, World, current
from grampus.versions import FIRST

CLUSTER, HISTORY = "sim", "h1"
#: Ledgers are compared at every so many entries.
LOOK = 25
Peer = Connection[Message]


class Settings(Struct, frozen=True):
    """Small bounds make snapshots, segments and checkpoints come often."""

    limits: Limits = Limits(checkpoint_entries=50, checkpoint_idle=0.5)
    kept: Kept = Kept()
    #: Whether the leader promotes and replaces by itself, as a steward in office does.
    steward: bool = False


class SimLedger(Ledger):
    """Keeps, at every checkpoint, what a power cut would leave of it; tells what it applies."""

    def __init__(self, machine: SimMachine, path: Path) -> None:
        super().__init__(path)
        self._machine = machine
        self._file = path
        self.image = path.with_suffix(".image")
        if not self.image.exists():
            super().checkpoint()
            shutil.copyfile(path, self.image)

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        self._machine.disk.need_room()
        answer = super().apply(index, term, commands)
        self._machine.watch.applied(self._machine.member.name, index, term, tuple(commands))
        self._look()
        return answer

    def apply_members(self, index: int, term: int, members: bytes) -> None:
        self._machine.disk.need_room()
        super().apply_members(index, term, members)
        self._machine.watch.applied(self._machine.member.name, index, term, (members,))

    def _look(self) -> None:
        if self.applied_index % LOOK == 0:
            name = self._machine.member.name
            self._machine.watch.content(name, self.applied_index, self.checksum())

    def checkpoint(self) -> int | None:
        self._machine.disk.need_room()
        index = super().checkpoint()
        if index is not None:
            shutil.copyfile(self._file, self.image)
        return index


class SimMachine:
    """What is left of a server when its process is gone."""

    def __init__(
        self, world: World, watch: ClusterWatch, member: Member, folder: Path, settings: Settings
    ) -> None:
        self.world = world
        self.watch = watch
        self.member = member
        self.folder = folder
        self.settings = settings
        self.disk = SimDisk(world.rng)
        #: By how much its wall clock is wrong, in ms.
        self.skew = 0
        for part in ("ledger", "log"):
            (folder / part).mkdir(parents=True)
        DurableLog.open(folder / "log").close()

    @property
    def new(self) -> bool:
        """It has no ledger of the cluster yet, and room to be told of it."""
        return Generation.current(self.folder).number == 0 and self.disk.room is None

    def introduce(self, members: Members) -> None:
        introduce(self.folder, members, self.disk)

    def standing(self) -> Standing | None:
        return standing(self.folder)

    def crash(self, power: bool) -> None:
        if not power:
            self.disk.forget()
            return
        undone = self.disk.cut_power()
        self.world.say(f"{self.member.name}: {undone} changes of its disk are lost")
        for image in sorted(self.folder.rglob("*.image")):
            if self.world.rng.random() < 0.7:
                path = image.with_suffix(".db")
                shutil.copyfile(image, path)
                for tail in ("-wal", "-shm"):
                    path.with_name(path.name + tail).unlink(missing_ok=True)


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


class SimServer:
    """A process of `grampus server`, without API and master."""

    def __init__(self, loop: ProcessLoop, machine: SimMachine) -> None:
        self.loop = loop
        self.machine = machine
        self.replica: RaftReplica | None = None
        self.ledger: Ledger | None = None
        #: Highest index that it has applied.
        self.applied = 0
        #: All of it.
        self.task: asyncio.Task[None] | None = None
        self.steward: Steward | None = None
        self._desk: PeerDesk | None = None
        self._trail: Trail
        loop.dying.append(self._died)

    @property
    def name(self) -> str:
        return self.machine.member.name

    def stop(self) -> None:
        """SIGTERM."""
        if self.task is not None:
            self.task.cancel()

    def _died(self) -> None:
        if self.ledger is not None:
            self.ledger.close()

    async def run(self, first: bool) -> None:
        """Until it is cancelled, removed, or its disk is full. Whatever else ends it is a bug."""
        disk = self.machine.disk
        disk.was_full = False
        try:
            if first and self.machine.standing() is None:
                await found(self.machine.folder, self.machine.member, HISTORY, disk=disk)
            bits = self.loop.world.rng.getrandbits
            self._trail = Trail.begin(self.machine.folder, disk, lambda: bits(63))
            await self._listen()
        except* NoMember as errors:
            older = str(errors.exceptions[0]) == OLDER
            self.loop.world.say(f"{self.name} is told that it was removed, and stops")
            self.machine.watch.seen["put back" if older else "removed"] += 1
        except* StorageFailed:
            if not disk.was_full:
                raise
            self.loop.world.say(f"{self.name} stops: its disk is full")
            self.machine.watch.seen["stopped by a full disk"] += 1

    async def _listen(self) -> None:
        async with asyncio.TaskGroup() as group:
            server: Server[Message] = Server(
                Codec(Message), self, self._greet, group,
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
        ledger = self.ledger = SimLedger(self.machine, generation.ledger / LEDGER)
        try:
            async with asyncio.TaskGroup() as group:
                peers = NoisyPeers(member.id, self._hello, decode_answers, group, trail=self._trail)
                peers.watch, peers.world = watch, world
                replica = await RaftReplica.open(
                    member.id, generation, ledger, peers,
                    limits=self.machine.settings.limits, kept=self.machine.settings.kept,
                    light=ledger.light, disk=self.machine.disk, seed=world.rng.getrandbits(32),
                )  # fmt: skip
                watch.booted(member.id, replica.term, replica.vote)
                steward = Steward(
                    replica, peers, member, CLUSTER, HISTORY,
                    apply_version=lambda: ledger.apply_version, newest=FIRST,
                )  # fmt: skip
                self.replica, self.steward = replica, steward
                self._desk = PeerDesk(
                    replica, encode_answers, self._hello("control"), steward, trail=self._trail
                )
                trail = group.create_task(self._trail.run(peers.stamp))
                office = group.create_task(self._office(replica, steward, group))
                void = group.create_task(self._until(peers.void))
                try:
                    await replica.run()
                finally:
                    office.cancel()
                    void.cancel()
                    trail.cancel()
                    self.replica = self._desk = self.steward = None
                    peers.close()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            ledger.close()
            self.ledger = None

    async def _until(self, void: asyncio.Future[str]) -> None:
        raise NoMember(await void)

    async def _office(
        self, replica: RaftReplica, steward: Steward, group: asyncio.TaskGroup
    ) -> None:
        """The steward works while the server leads."""
        with contextlib.suppress(Stopped):
            while self.machine.settings.steward:
                await replica.leads()
                term = replica.term
                work = group.create_task(steward.run(term))
                try:
                    await replica.deposed(term)
                finally:
                    work.cancel()

    def _hello(self, lane: str) -> Hello:
        member, replica = self.machine.member, self.replica
        return Hello(
            PROTOCOL_VERSION, lane, "server", member.name, CLUSTER, "secret", HISTORY, member.id,
            member, stamp=self._trail.newest, term=0 if replica is None else replica.term,
            last=0 if replica is None else replica.last_index,
        )  # fmt: skip

    # -- the Handler of its node port

    def _greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        if self._desk is None or not isinstance(hello, Hello):
            return Goodbye("not open yet"), False, 0
        return self._desk.greet(hello)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if self._desk is not None and isinstance(connection.greeting, Hello):
            self._desk.messages(connection.greeting, batch)

    async def request(self, connection: Peer, message: Message) -> Message:
        if self._desk is None:
            raise NotLeader("not open yet")
        return await self._desk.request(message)

    def closed(self, connection: Peer, reason: str) -> None:
        return
