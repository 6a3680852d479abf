"""A server's node port that admits and lets join, over a ledger in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grampus.clock import SystemClock
from grampus.cluster import join_token, tokens
from grampus.cluster.admission import JOIN, Admission
from grampus.cluster.commands import Command, encode_command
from grampus.cluster.join_desk import JOIN_FRAME, JoinDesk
from grampus.cluster.join_token import JoinToken, secret_hash
from grampus.cluster.token_commands import CreateToken
from grampus.cluster.tokens import TokenRow
from grampus.ledger import Ledger
from grampus.protocol import (
    CONTROL_FRAME,
    HELLO_FRAME,
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    Message,
    Renew,
    Welcome,
)
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.rpc.tls import NodeTls
from grampus.rpc.tls_folder import TlsFolder

CLUSTER = "cluster-a"
HOUR = 3_600_000
SERVER_SECRET = join_token.new_secret(b"s" * 32)

Peer = Connection[Message]


class Host:
    """The server: `proposals` are the commands that joining brought about."""

    def __init__(self, folder: TlsFolder | None) -> None:
        self.clock = SystemClock()
        self.folder = folder
        self.ledger = Ledger(None)
        self.proposals: list[Command] = []
        self.server: Server[Message]
        encrypted = folder is not None
        self.admission = Admission(
            CLUSTER, lambda name: tokens.worker_key(self.ledger.database, name),
            encrypted=encrypted, server_secret=SERVER_SECRET,
        )  # fmt: skip
        self.desk = JoinDesk(
            CLUSTER, "history", tls=folder, server_secret=SERVER_SECRET, propose=self._propose,
            find_token=self._find_token, servers=lambda: ["127.0.0.1:8471"], clock=self.clock,
        )  # fmt: skip

    def token(self, role: str, name: str = "", life: int = HOUR, number: int = 1) -> JoinToken:
        """A token that the ledger knows."""
        authority = self.folder.authority().hash if self.folder else join_token.PLAIN
        token = join_token.make(authority, bytes([number]) * join_token.ENTROPY)
        now = self.clock.now()
        self.apply(CreateToken(now, token.id, secret_hash(token.secret), role, name, now + life))
        return token

    def apply(self, command: Command) -> object:
        index = self.ledger.applied_index + 1
        return self.ledger.apply(index, 1, [encode_command(command)])[0][0]

    async def _propose(self, command: Command) -> object:
        self.proposals.append(command)
        return self.apply(command)

    async def _find_token(self, token: str) -> TokenRow | None:
        return tokens.find_token(self.ledger.database, token)

    # ---- the node port

    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        assert isinstance(hello, Hello)
        if reason := self.admission.refuses(hello, subject):
            return Goodbye(reason), False, 0
        frame = JOIN_FRAME if hello.role == JOIN else CONTROL_FRAME
        return Welcome(PROTOCOL_VERSION, "s1", CLUSTER), True, frame

    def opened(self, connection: Peer) -> None:
        if self._joins(connection):
            self.desk.opened(connection)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if self._joins(connection):
            self.desk.messages(connection, batch)

    async def request(self, connection: Peer, message: Message) -> Message:
        if isinstance(message, Renew):
            return self.desk.renew(connection, message)
        if self._joins(connection):
            return await self.desk.request(connection, message)
        return message

    def closed(self, connection: Peer, reason: str) -> None:
        if self._joins(connection):
            self.desk.closed(connection, reason)

    def _joins(self, connection: Peer) -> bool:
        hello = connection.greeting
        return isinstance(hello, Hello) and hello.role == JOIN


@asynccontextmanager
async def host(folder: TlsFolder | None) -> AsyncIterator[Host]:
    """Listens on a free port of loopback."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        here = Host(folder)
        tls = NodeTls(folder) if folder else None
        here.server = Server(
            Codec(Message), here, here.greet, tasks, opened=here.opened,
            hello_limit=HELLO_FRAME, tls=tls,
        )  # fmt: skip
        await here.server.start("127.0.0.1", 0)
        yield here
        await here.server.close()


def founded(path: Path) -> TlsFolder:
    """DIR/tls of the first server of a cluster."""
    path.mkdir(parents=True, exist_ok=True)
    folder = TlsFolder(path)
    folder.found(CLUSTER, "s1", [], SystemClock().now())
    return folder
