"""Asks the leader over the connections between servers."""

from __future__ import annotations

from grampus.consensus.peers import Peers
from grampus.consensus.replica import RaftReplica
from grampus.errors import NoQuorum
from grampus.protocol import Message, ReadLog


class PeerRelay:
    """Implements `Relay`. Pieces of logs take the bulk lane."""

    def __init__(self, replica: RaftReplica, peers: Peers) -> None:
        self._replica = replica
        self._peers = peers

    async def ask_leader(self, message: Message, within: float) -> Message:
        leader = self._replica.leader_id
        if not leader or leader == self._replica.id:
            raise NoQuorum("no server leads now: ask again in a moment")
        bulk = isinstance(message, ReadLog)
        return await self._peers.ask(leader, message, within, bulk=bulk)
