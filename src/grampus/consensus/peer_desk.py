"""What other servers say to this one: Raft's messages, proposals, read barriers, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from grampus.consensus.port import Stopped
from grampus.consensus.replica import ROUND, RaftReplica
from grampus.consensus.steward import Steward
from grampus.consensus.trail import Trail
from grampus.errors import NotLeader, OutcomeUnknown, Overloaded, ProtocolError
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    PROTOCOL_VERSION,
    ClusterAsk,
    Goodbye,
    Hello,
    Message,
    Propose,
    Proposed,
    PutSnapshot,
    RaftMessages,
    ReadIndex,
    ReadIndexed,
    Stamped,
    TookSnapshot,
    Welcome,
)

_OTHER_HISTORY = (
    "the cluster was recovered without this server, and has a history of its own since: empty this"
    " server's folder and let it join anew"
)
Encode = Callable[[list[object]], bytes]


class PeerDesk:
    """For connections whose Hello was that of a server; who it is has been looked at."""

    def __init__(
        self,
        replica: RaftReplica,
        encode: Encode,
        me: Hello,
        steward: Steward | None = None,
        *,
        apply_version: Callable[[], int] = lambda: 0,
        trail: Trail | None = None,
    ) -> None:
        """`me` is what this server says to its peers: they must agree on the history.
        `apply_version` is that of the ledger."""
        self._replica = replica
        self._encode = encode
        self._me = me
        self._steward = steward
        self._apply_version = apply_version
        self._trail = trail

    def too_old(self, hello: Hello) -> str:
        """Why a server, or one who wants to become it, is too old for this cluster, or "".

        A member is let in all the same: it takes part until it meets what it does not know, and
        says so itself. What it acknowledges before that counts."""
        version = self._apply_version()
        if not 0 < hello.apply < version or self._replica.members.find(hello.id) is not None:
            return ""
        return (
            f"this cluster is at apply version {version}, and {hello.node} knows {hello.apply} at"
            " most: install the Grampus of the other servers first"
        )

    def greet(self, hello: Hello) -> tuple[Message, bool, int]:
        """For a Hello of a server that has been admitted: version, cluster and credential are
        right."""
        me = self._me
        if why := self.stranger(hello):
            return Goodbye(why), False, 0
        if hello.id == me.id:
            return Goodbye("this server has the same id: one folder runs twice"), False, 0
        if why := self.too_old(hello):
            return Goodbye(why), False, 0
        if hello.listens is not None and hello.listens.id == hello.id:
            self._replica.meet(hello.listens)
        limit = CONTROL_FRAME if hello.lane == "control" else BULK_FRAME
        answer = Welcome(PROTOCOL_VERSION, me.node, me.cluster, me.apply)
        if (trail := self._trail) is not None:
            term, peer = self._replica.term, self._replica.peers.get(hello.id)
            acknowledged = 0 if peer is None else peer[0]
            trail.greeted(hello, acknowledged if hello.term <= term else 0)
            answer = replace(
                answer, stamps=True, seen=trail.seen(hello.id), term=term,
                acknowledged=acknowledged,
            )  # fmt: skip
        return answer, True, limit

    def stranger(self, hello: Hello) -> str:
        """Why a server has no place in this cluster any more, whatever its credential; "" for
        one that may."""
        if hello.history != self._me.history:
            return _OTHER_HISTORY
        return self._replica.members.void(hello.id)

    def void(self, id: int) -> str:
        """Why nothing is heard any more from a server that was let in; "" for a member."""
        return self._replica.members.void(id)

    def messages(self, hello: Hello, batch: list[Message]) -> None:
        trail = self._trail
        for message in batch:
            match message:
                case RaftMessages():
                    if trail is None or trail.hears(hello):
                        self._replica.waits(hello.id, message.keen)
                        self._replica.step(message.messages)
                case Stamped() if trail is not None:
                    trail.told(hello.id, message.stamp)
                case Goodbye() if trail is not None:
                    trail.disowned(hello.id)
                case _:
                    raise ProtocolError(f"{type(message).__name__} is not for a peer")

    async def request(self, message: Message) -> Message:
        match message:
            case Propose():
                return await self._propose(message.commands)
            case ReadIndex():
                return await self._read_index()
            case PutSnapshot():
                return await self._snapshot(message)
            case ClusterAsk() if self._steward is not None:
                # A newcomer may ask any server; who asks as a peer has asked the leader.
                relay = message.action == "admit"
                return await (self._steward.relay if relay else self._steward.answer)(message)
            case _:
                raise ProtocolError(f"{type(message).__name__} is no request to a peer")

    async def _propose(self, commands: list[bytes]) -> Proposed:
        try:
            results = await self._replica.propose_here(commands)
        except NotLeader as error:
            return Proposed("not-leader", reason=str(error))
        except Overloaded as error:
            return Proposed("overloaded", reason=str(error))
        except OutcomeUnknown as error:
            return Proposed("unknown", reason=str(error))
        except Stopped as error:
            return Proposed("not-leader", reason=str(error))
        return Proposed("done", self._encode(results), index=self._replica.applied_index)

    async def _read_index(self) -> ReadIndexed:
        """0 for: ask again, and maybe another."""
        try:
            async with asyncio.timeout(ROUND):
                return ReadIndexed(await self._replica.confirm())
        except (NotLeader, Stopped, TimeoutError):
            return ReadIndexed(0)

    async def _snapshot(self, piece: PutSnapshot) -> TookSnapshot:
        if self._trail is not None and self._trail.lost:
            return TookSnapshot(False)
        ok = await self._replica.incoming.take(piece.manifest, piece.offset, piece.data, piece.last)
        if ok and piece.last:
            self._replica.step([piece.message])
        return TookSnapshot(ok)
