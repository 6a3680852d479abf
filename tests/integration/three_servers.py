"""Three servers of a metadata center in one process: real replicas, ledgers, logs and connections.

A server can be killed and started again, or cut off from the other two while clients reach it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from grampus.answers import decode_answers, encode_answers
from grampus.clock import SystemClock
from grampus.cluster.client import ClusterClient
from grampus.cluster.core.route import Address
from grampus.cluster.desk import KEYS, KeyDesk
from grampus.cluster.held_session import HeldSession
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.members import Members
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.peers import Peers
from grampus.consensus.record import HardState
from grampus.consensus.replica import RaftReplica
from grampus.consensus.snapshots import LEDGER, lay_down
from grampus.ledger import Ledger
from grampus.model.member import Member
from grampus.protocol import (
    HELLO_FRAME,
    HELLO_TIMEOUT,
    KEYS_FRAME,
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    Message,
    Welcome,
)
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.server.directory import MemberDirectory
from tests.ports import free_ports

#: No test waits longer than this for anything, in seconds.
PATIENCE = 60.0
Peer = Connection[Message]


class OneServer:
    """`start` and `kill` in turn."""

    def __init__(self, folder: Path, member: Member) -> None:
        self.folder = folder
        self.member = member
        self.keys: ClusterServer
        self.replica: RaftReplica
        self.cut = False
        #: It answers nobody, as if it was held.
        self.held = False
        #: By how much its revisions seem to be higher than they are.
        self.ahead = 0
        #: To whom it has sent messages of Raft, one after the other.
        self.sent: list[int] = []
        self._desk: PeerDesk
        self._room: KeyDesk
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> Address:
        return self.member.host, self.member.node_port

    async def start(self) -> None:
        up = asyncio.Event()
        self.cut = False
        self._task = asyncio.ensure_future(self._run(up))
        waiting = asyncio.ensure_future(up.wait())
        await asyncio.wait((self._task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            waiting.cancel()
            self._task.result()

    async def kill(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def waited(self) -> None:
        """Returns once somebody waits for a change here."""
        while not self.keys.feed.waited:  # noqa: ASYNC110, of what nobody is told
            await asyncio.sleep(0.001)

    async def _run(self, up: asyncio.Event) -> None:
        generation = Generation.current(self.folder)
        path = generation.ledger / LEDGER
        ledger = Ledger(path)
        reads = KeyReads(path)
        try:
            async with asyncio.TaskGroup() as group:
                me = self.member
                peers = _Peers(self, me.id, self._hello, decode_answers, group)
                self.replica = await RaftReplica.open(
                    me.id, generation, ledger, peers, light=ledger.light
                )
                self.replica.admit = ledger.admit
                self.keys = ClusterServer(self.replica, reads, SystemClock(), "h1", os.urandom)
                self.replica.watched = lambda: self.keys.feed.waited
                self._desk = PeerDesk(self.replica, encode_answers, self._hello("control"))
                self._room = KeyDesk(self.keys, MemberDirectory(self.replica))
                server: Server[Message] = Server(
                    Codec(Message), self, self._greet, group,
                    hello_limit=HELLO_FRAME, hello_timeout=HELLO_TIMEOUT,
                )  # fmt: skip
                await server.start(me.host, me.node_port)
                group.create_task(self.keys.run())
                replica = group.create_task(self.replica.run())
                up.set()
                try:
                    await replica
                finally:
                    peers.close()
                    self.keys.close()
                    await server.close()
        finally:
            reads.close()
            ledger.close()

    def _hello(self, lane: str) -> Hello:
        return Hello(
            PROTOCOL_VERSION, lane, "server", self.member.name, "c1", "", "h1", self.member.id
        )

    # -- the Handler of its node port

    def _greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        assert isinstance(hello, Hello)
        if hello.lane == KEYS:
            seen = self.keys.seen
            return Welcome(
                PROTOCOL_VERSION, self.member.name, "c1", history=seen.history,
                revision=seen.revision + self.ahead,
            ), True, KEYS_FRAME  # fmt: skip
        if self.cut:
            return Goodbye("cut off"), False, 0
        return self._desk.greet(hello)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if not self.cut:
            assert isinstance(connection.greeting, Hello)
            self._desk.messages(connection.greeting, batch)

    def take(self, connection: Peer, number: int, message: Message) -> bool:
        assert isinstance(connection.greeting, Hello)
        if self.held:
            return False
        for_keys = connection.greeting.lane == KEYS
        return for_keys and self._room.take(connection, number, message)

    async def request(self, connection: Peer, message: Message) -> Message:
        assert isinstance(connection.greeting, Hello)
        if self.held:
            await asyncio.sleep(PATIENCE)
        if connection.greeting.lane == KEYS:
            return await self._room.request(connection, message)
        if self.cut:
            await asyncio.sleep(PATIENCE)
        return await self._desk.request(connection.greeting, message)

    def closed(self, connection: Peer, reason: str) -> None:
        return


class _Peers(Peers):
    """Loses everything while its server is cut off."""

    def __init__(self, server: OneServer, *rest: object) -> None:
        super().__init__(*rest)  # type: ignore[arg-type]
        self._server = server

    def send(self, to: int, messages: Iterable[bytes], keen: bool = False) -> bool:
        self._server.sent.append(to)
        return self._server.cut or super().send(to, list(messages), keen)

    async def ask(self, to: int, message: Message, within: float, *, bulk: bool = False) -> Message:
        if self._server.cut:
            await asyncio.sleep(PATIENCE)
        return await super().ask(to, message, within, bulk=bulk)


class Three:
    def __init__(self, servers: list[OneServer], tasks: asyncio.TaskGroup) -> None:
        self.servers = servers
        self._tasks = tasks
        self._clients: list[ClusterClient] = []

    async def leader(self) -> OneServer:
        """The one that leads in the newest term; waits for it."""
        while True:
            leading = [s for s in self.servers if s._task is not None and s.replica.leader]
            if leading:
                return max(leading, key=lambda server: server.replica.term)
            await asyncio.sleep(0.02)

    async def followers(self) -> list[OneServer]:
        leader = await self.leader()
        return [server for server in self.servers if server is not leader]

    def client(self, *servers: OneServer) -> ClusterClient:
        """One that begins with these servers, by default with all."""
        client = ClusterClient(
            [server.address for server in servers or self.servers],
            lambda: Hello(PROTOCOL_VERSION, KEYS, "worker", "w1", "c1", ""),
            SystemClock(), os.urandom, self._tasks,
        )  # fmt: skip
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


async def kept_anew(session: HeldSession) -> None:
    """Returns once a server has confirmed it that was asked from now on; fails when it is over."""
    holder, clock = session._holder, SystemClock()
    wanted = clock.ticks() + holder._span
    while holder.deadline < wanted:
        assert session.lives
        await asyncio.sleep(0.02)


def _lay(folder: Path, members: Members) -> None:
    """A folder as if all three had been founders together."""
    generation = Generation.current(folder)
    copy = folder / "founding.db"
    ledger = Ledger(copy)
    ledger.apply(1, 1, [])
    index, term = ledger.found(members.encode(), "h1", 0)
    ledger.checkpoint()
    ledger.close()
    lay_down(generation.following, copy, (index, term), HardState(term, 0, index), Disk())


@asynccontextmanager
async def three(folder: Path) -> AsyncIterator[Three]:
    known = tuple(
        Member(number, f"s{number}", "127.0.0.1", 1, port)
        for number, port in enumerate(free_ports(3), 1)
    )
    members = Members(conf=([1, 2, 3], [], [], [], False), known=known)
    servers = []
    for member in known:
        path = folder / member.name
        path.mkdir()
        _lay(path, members)
        servers.append(OneServer(path, member))
    try:
        for server in servers:
            await server.start()
        async with asyncio.TaskGroup() as tasks:
            ground = Three(servers, tasks)
            try:
                yield ground
            finally:
                ground.close()
    finally:
        for server in servers:
            await server.kill()


def play(folder: Path, scenario: Callable[[Three], Awaitable[None]]) -> None:
    async def go() -> None:
        async with three(folder) as ground:
            await asyncio.wait_for(scenario(ground), PATIENCE)

    asyncio.run(go())
