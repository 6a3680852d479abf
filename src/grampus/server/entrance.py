"""Who may come in at a server's node port, and how a newcomer becomes a node: the parts of it, made
of what this server is.

What each of them decides is in `cluster`; which lane leads to which of them, in `reception`.
"""

from __future__ import annotations

import os

from grampus.clock import Clock
from grampus.cluster import tokens
from grampus.cluster.admission import Admission
from grampus.cluster.commands import encode_command
from grampus.cluster.join_desk import JoinDesk
from grampus.cluster.join_token import PLAIN
from grampus.cluster.token_commands import UseToken
from grampus.cluster_face import TokenDesk
from grampus.consensus.bearer import void_key
from grampus.consensus.replica import RaftReplica
from grampus.database import Database
from grampus.rpc.certificates import authority_hash
from grampus.rpc.tls_folder import TlsFolder
from grampus.server.arrival import Place


def make_admission(place: Place, readers: Database) -> Admission:
    return Admission(
        place.cluster, lambda name: tokens.worker_key(readers, name),
        encrypted=place.encrypted, server_secret=place.secret,
    )  # fmt: skip


def make_token_desk(
    place: Place, replica: RaftReplica, readers: Database, clock: Clock
) -> TokenDesk:
    authority = PLAIN
    if place.encrypted:
        authority = authority_hash(TlsFolder(place.folder).authority_certificate())
    return TokenDesk(replica, readers, authority, clock, os.urandom)


def make_join_desk(place: Place, replica: RaftReplica, readers: Database, clock: Clock) -> JoinDesk:
    async def propose(command: UseToken) -> object:
        (answer,) = await replica.propose([encode_command(command)])
        return answer

    async def find_token(token: str) -> tokens.TokenRow | None:
        await replica.read_barrier()
        return tokens.find_token(readers, token)

    return JoinDesk(
        place.cluster, place.history,
        tls=TlsFolder(place.folder) if place.encrypted else None,
        server_secret=place.secret, propose=propose, find_token=find_token,
        servers=lambda: [member.address for member in replica.members.known],
        clock=clock, void=lambda key: void_key(replica.members, key),
    )  # fmt: skip
