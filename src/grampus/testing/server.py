"""One server of a simulated cluster: a real replica over a real log and ledger, real connections.

Its machine is played: disk and ledger lose what a power cut takes, its process is killed or held.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

from grampus.answers import decode_answers, encode_answers
from grampus.consensus.generation import Generation
from grampus.consensus.introduction import introduce
from grampus.consensus.members import Members
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.peers import Peers
from grampus.consensus.replica import RaftReplica
from grampus.consensus.snapshots import LEDGER, Installed
from grampus.consensus.writer import Limits
from grampus.errors import NotLeader
from grampus.founding import Standing, found, standing
from grampus.ledger import Ledger
from grampus.model.member import Member
from grampus.protocol import HELLO_FRAME, HELLO_TIMEOUT, PROTOCOL_VERSION, Goodbye, Hello, Message
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.testing.disk import SimDisk
from grampus.testing.world import ProcessLoop, World

CLUSTER = "sim"
LIMITS = Limits(checkpoint_entries=50, checkpoint_idle=0.5)
Peer = Connection[Message]


class SimLedger(Ledger):
    """Keeps, at every checkpoint, what a power cut would leave of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path
        self.image = path.with_suffix(".image")
        if not self.image.exists():
            super().checkpoint()
            shutil.copyfile(path, self.image)

    def checkpoint(self) -> int | None:
        index = super().checkpoint()
        if index is not None:
            shutil.copyfile(self._file, self.image)
        return index


class SimMachine:
    """What is left of a server when its process is gone."""

    def __init__(self, world: World, name: str, id: int, folder: Path) -> None:
        self.world = world
        self.member = Member(id, name, "127.0.0.1", 7000 + id, 8000 + id)
        self.folder = folder
        self.disk = SimDisk(world.rng)
        for part in ("ledger", "log"):
            (folder / part).mkdir(parents=True)

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


class SimServer:
    """A process of `grampus server`, without API and master."""

    def __init__(self, loop: ProcessLoop, machine: SimMachine) -> None:
        self.loop = loop
        self.machine = machine
        self.replica: RaftReplica | None = None
        self.ledger: Ledger | None = None
        self.boots = 0
        self._desk: PeerDesk | None = None
        loop.dying.append(self._died)

    def _died(self) -> None:
        if self.ledger is not None:
            self.ledger.close()

    async def run(self, first: bool) -> None:
        if first and self.machine.standing() is None:
            await found(self.machine.folder, self.machine.member, "h1")
        async with asyncio.TaskGroup() as group:
            server: Server[Message] = Server(
                Codec(Message), self, self._greet, group,
                hello_limit=HELLO_FRAME, hello_timeout=HELLO_TIMEOUT,
            )  # fmt: skip
            await server.start("127.0.0.1", self.machine.member.node_port)
            while True:
                with contextlib.suppress(Installed):
                    await self._serve()
                self.loop.world.say(f"{self.machine.member.name}: a snapshot is laid down")

    async def _serve(self) -> None:
        """Until a snapshot is laid down."""
        member, world = self.machine.member, self.loop.world
        generation = Generation.current(self.machine.folder)
        generation.sweep()
        ledger = self.ledger = SimLedger(generation.ledger / LEDGER)
        self.boots += 1
        try:
            async with asyncio.TaskGroup() as group:
                peers = Peers(member.id, self._hello, decode_answers, group)
                replica = await RaftReplica.open(
                    member.id, generation, ledger, peers,
                    limits=LIMITS, light=ledger.light, disk=self.machine.disk,
                    seed=world.rng.getrandbits(32),
                )  # fmt: skip
                self._desk = PeerDesk(replica, encode_answers, self._hello("control"))
                self.replica = replica
                try:
                    await replica.run()
                finally:
                    self.replica = self._desk = None
                    peers.close()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            ledger.close()
            self.ledger = None

    def _hello(self, lane: str) -> Hello:
        member = self.machine.member
        return Hello(
            PROTOCOL_VERSION, lane, "server", member.name, CLUSTER, "secret", "h1", member.id
        )

    # -- the Handler of its node port

    def _greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        if self._desk is None or not isinstance(hello, Hello):
            return Goodbye("not open yet"), False, 0
        return self._desk.greet(hello)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if self._desk is not None:
            self._desk.messages(batch)

    async def request(self, connection: Peer, message: Message) -> Message:
        if self._desk is None:
            raise NotLeader("not open yet")
        return await self._desk.request(message)

    def closed(self, connection: Peer, reason: str) -> None:
        return
