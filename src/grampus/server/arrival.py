"""How a data folder becomes that of a server: it founds a cluster, joins one, or is one already.

Rules: a cluster is founded once, by `--init`, never by an empty folder on its own. A folder that
has data is never made to join. Whoever is interrupted while joining joins again with the same token
and gets the same answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from grampus import versions
from grampus.cluster.credentials import Credentials, read_credentials, write_credentials
from grampus.cluster.join_token import JoinToken
from grampus.cluster.joining import Newcomer, join
from grampus.config import Config, Listen
from grampus.consensus.disk import Disk
from grampus.consensus.folder import ENTROPY, DataFolder
from grampus.consensus.generation import Generation
from grampus.consensus.introduction import introduce, introduced
from grampus.consensus.members import Members
from grampus.consensus.snapshots import LEDGER
from grampus.errors import (
    FolderCopied,
    FolderError,
    GrampusError,
    ProtocolError,
    ServerUnreachable,
    UsageError,
)
from grampus.founding import found, raft_id, standing
from grampus.loopback import is_own
from grampus.model.member import Member
from grampus.protocol import (
    CONTROL_FRAME,
    HELLO_TIMEOUT,
    PROTOCOL_VERSION,
    ClusterAsk,
    ClusterTold,
    Goodbye,
    Hello,
    Message,
    Welcome,
)
from grampus.rpc.address import is_everywhere, names_of
from grampus.rpc.certificates import request_key
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import look_at_port
from grampus.rpc.subject import SERVER
from grampus.rpc.tls import NodeTls, Tls
from grampus.rpc.tls_folder import TlsFolder
from grampus.server.second import refuse_second
from grampus.worker.identity import machine_id

log = logging.getLogger("grampus.server")

#: Seconds that admission may take: the members change by the log.
ADMISSION = 20.0
Peer = Connection[Message]


class Plan(Struct, frozen=True):
    """What the command line says."""

    #: Found a cluster if the folder belongs to none.
    init: bool = False
    #: Addresses of servers, as their --listen has them, to join if the folder belongs to none.
    join: tuple[Listen, ...] = ()
    token: JoinToken | None = None
    #: Other servers that the settings name: if one answers, no second cluster is founded.
    others: tuple[Listen, ...] = ()


class Place(Struct, frozen=True):
    """A folder that is a server's."""

    folder: Path
    cluster: str
    history: str
    me: Member
    #: What servers show each other where there is no TLS.
    secret: str
    encrypted: bool
    #: Of this process: another one on a copy of the folder has another.
    instance: int = 0

    def hello(self, lane: str) -> Hello:
        return Hello(
            PROTOCOL_VERSION, lane, SERVER, self.me.name, self.cluster, self.secret, self.history,
            self.me.id, self.me, versions.newest(), instance=self.instance,
        )  # fmt: skip

    def tls(self) -> Tls | None:
        return NodeTls(TlsFolder(self.folder)) if self.encrypted else None

    @property
    def api_token(self) -> str:
        """The same on every server: made from what only servers know."""
        secret = self.secret.encode()
        if self.encrypted:
            secret = TlsFolder(self.folder).authority_key()
        return hmac.new(secret, b"grampus api token", hashlib.sha256).hexdigest()


def open_folder(path: Path, name: str) -> DataFolder:
    """Takes the folder of a server. Raises FolderError.

    A copy of it must not become the server again, for it may have forgotten a vote or an answer."""
    try:
        return DataFolder.open(path, machine=machine_id(), entropy=os.urandom(ENTROPY))
    except FolderCopied as error:
        there = standing(path)
        if there is None and not introduced(path).known:
            raise
        raise FolderError(
            f"{path} is a copy of the folder of a cluster's server, or was restored from a backup:"
            " it may have forgotten what that server has promised. Start the original; if it is"
            f" lost, say on another server: grampus cluster replace {name}, and let an empty folder"
            " join under that name"
        ) from error


def as_before(config: Config, folder: DataFolder) -> Config:
    """The name and the address that nobody says are those by which the cluster knows this folder's
    server: a restart needs nothing but the folder."""
    there = standing(folder.path)
    members = introduced(folder.path) if there is None else there.members
    known = members.find(raft_id(folder.identity.node))
    if known is None:
        return config
    unsaid = {key for key in ("name", "listen") if config.sources[key] == "default"}
    before = {"name": known.name, "listen": Listen(known.host, known.port)}
    return replace(config, **{key: before[key] for key in unsaid})


async def arrive(folder: DataFolder, listen: Listen, name: str, plan: Plan, now: int) -> Place:
    """Raises UsageError when the folder is empty and nothing was said of what to do; FolderError,
    Refused, ServerUnreachable."""
    path = folder.path
    if is_everywhere(listen.host):
        raise UsageError(
            f"a server tells the others where it listens, and {listen.host} is every address: say"
            " the one at which they reach it"
        )
    me = Member(raft_id(folder.identity.node), name, listen.host, listen.port, listen.node_port)
    there = standing(path)
    if there is not None:
        known = there.members.find(me.id)
        if known is not None and known.name != name:
            raise FolderError(f"{path} is the folder of server {known.name}, not of {name}")
        return _place(folder, there.history, me)
    if introduced(path).known:
        return _place(folder, folder.identity.history, me)
    if not plan.init and not plan.join:
        raise UsageError(
            f"{path} is the folder of no server yet: found a cluster with --init, or join one with"
            " --join HOST:PORT --token-file FILE"
        )
    # Before anything is done that stays done: a cluster, a token that is used, a member.
    for port in (me.port, me.node_port):
        await look_at_port(me.host, port)
    if plan.init:
        await refuse_second(plan.others, name)
        return await _found(folder, me, now)
    return await _join(folder, me, plan)


async def _found(folder: DataFolder, me: Member, now: int) -> Place:
    prepare_first(folder, me, now)
    me = keyed(folder.path, me)
    made = await found(folder.path, me, folder.identity.history)
    log.info("cluster %s is founded by server %s", folder.identity.cluster, me.name)
    return _place(folder, made.history, me)


def prepare_first(folder: DataFolder, me: Member, now: int) -> None:
    """What the first server of a cluster shows to the others: made once."""
    path = folder.path
    if not is_own(me.host):
        if not TlsFolder(path).ready:
            TlsFolder(path).found(folder.identity.cluster, me.name, names_of(me.host), now)
        return
    own = read_credentials(path)
    if not own.server:
        write_credentials(path, Credentials(secrets.token_hex(32), own.worker))


def keyed(path: Path, me: Member) -> Member:
    """With the key that its certificate is for, where it has one."""
    tls = TlsFolder(path)
    return replace(me, key=request_key(tls.request())) if tls.ready else me


async def _join(folder: DataFolder, me: Member, plan: Plan) -> Place:
    path = folder.path
    if (Generation.current(path).ledger / LEDGER).exists():
        raise FolderError(f"{path} has runs of its own: join with an empty folder")
    if plan.token is None:
        raise UsageError("to join, a token is needed: make one with grampus cluster token")
    if not plan.token.encrypted and not is_own(me.host):
        raise UsageError(
            f"this cluster is of one machine: its join tokens are for 127.0.0.1, not {me.host}"
        )
    newcomer = Newcomer(
        path,
        SERVER,
        me.name,
        f"{me.host}:{me.node_port}",
        tuple(names_of(me.host)),
        versions.newest(),
    )
    servers = [(at.host, at.node_port) for at in plan.join]
    joined = await join(servers, plan.token, newcomer, os.urandom(32))
    folder.adopt(joined.cluster, joined.history)
    place = _place(folder, joined.history, me)
    members = await admission(place, servers)
    introduce(path, members, Disk())
    log.info("server %s joins cluster %s", me.name, joined.cluster)
    return place


async def admission(place: Place, servers: Sequence[tuple[str, int]]) -> Members:
    """Asks to become a member, or tells where this one listens now: who the members are then.

    Raises Refused, ServerUnreachable."""
    tried: list[str] = []
    for host, port in servers:
        try:
            async with asyncio.TaskGroup() as tasks:
                told = await _ask(host, port, place, tasks)
            if not isinstance(told, ClusterTold):
                raise ProtocolError(f"ClusterAsk was answered by {type(told).__name__}")
            return Members.decode(told.members)
        except ExceptionGroup as group:
            error = group.exceptions[0]  # there is one: nothing else runs in these tasks
            if not isinstance(error, ServerUnreachable):
                raise error from None
            tried.append(f"{Listen.of_nodes(host, port)}: {error}")
    raise ServerUnreachable("\n  ".join(["nobody admits this server:", *tried]))


async def _ask(host: str, port: int, place: Place, tasks: asyncio.TaskGroup) -> Message:
    connection, _ = await connect(
        host, port, Codec[Message](Message), Deaf(), place.hello("control"), _accept,
        HELLO_TIMEOUT, tasks=tasks, tls=place.tls(),
    )  # fmt: skip
    try:
        return await connection.request(ClusterAsk("admit", member=place.me), ADMISSION)
    finally:
        connection.close("this was all")
        await connection.wait_closed()


def _accept(answer: Message) -> int:
    if isinstance(answer, Goodbye):
        raise FolderError(f"the cluster does not take this server: {answer.reason}")
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"Hello was answered by {type(answer).__name__}")
    return CONTROL_FRAME


class Deaf:
    """The Handler of one who only asks."""

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        raise ProtocolError("nothing was to be said here but an answer")

    async def request(self, connection: Peer, message: Message) -> Message:
        raise GrampusError("who asks to be admitted answers nothing")

    def closed(self, connection: Peer, reason: str) -> None:
        return


def _place(folder: DataFolder, history: str, me: Member) -> Place:
    path, me = folder.path, keyed(folder.path, me)
    encrypted = TlsFolder(path).ready
    secret = "" if encrypted else read_credentials(path).server
    if not encrypted and not secret:
        raise FolderError(f"{path} has lost its credentials: restore it, or join anew")
    if not encrypted and not is_own(me.host):
        raise UsageError(
            f"the cluster of {path} is of one machine and has no TLS: it cannot listen on {me.host}"
        )
    cluster, instance = folder.identity.cluster, 1 + secrets.randbits(62)
    return Place(path, cluster, history, me, secret, encrypted, instance)
