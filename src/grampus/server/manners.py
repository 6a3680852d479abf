"""What a server owes to the other ones, and to who has started it: it says when it is ready, where
it listens, how it is, why it has to end; and gives the lead away before it ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable

from grampus.api.encryption import Encryption
from grampus.clock import SystemClock
from grampus.cluster.desk import KEYS
from grampus.cluster.monitor import keep_present, server_key
from grampus.consensus.members import LEFT_BEHIND, NoMember
from grampus.consensus.replica import RaftReplica
from grampus.consensus.steward import Steward
from grampus.consensus.trail import OLDER
from grampus.errors import GrampusError, NoQuorum
from grampus.protocol import ClusterAsk
from grampus.server.arrival import Place, admission
from grampus.server.blob_gather import BlobGather

#: Seconds that a leader has to give the lead away when it is told to stop; and that one who is no
#: member any more goes on, for who asks.
FAREWELL = 2.0


class Manners:
    def __init__(
        self, place: Place, replica: RaftReplica, steward: Steward, encryption: Encryption | None
    ) -> None:
        self._place = place
        self._replica = replica
        self._steward = steward
        self._encryption = encryption

    async def say_when_ready(
        self, url: str, ready: Callable[[str], None], waits: Callable[[str], None]
    ) -> None:
        patience = 1.0
        while True:
            try:
                await self._replica.read_barrier()
                break
            except NoQuorum as error:
                waits(str(error))
                await asyncio.sleep(patience)
                patience = min(2 * patience, 30.0)
        # What is there now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        ready(url)

    async def tell_where(self) -> None:
        """To the others, when this server listens elsewhere than it did: until then they do not
        reach it, and a majority may be missing."""
        place, replica, me = self._place, self._replica, self._place.me
        while replica.members.find(me.id) not in (None, me):
            others = [m for m in replica.members.known if m.id != me.id]
            with contextlib.suppress(GrampusError):
                if replica.leader:
                    await self._steward.relay(ClusterAsk("admit", member=me))
                else:
                    await admission(place, [(m.host, m.node_port) for m in others])
            await asyncio.sleep(1.0)

    async def present(self, gather: BlobGather) -> None:
        """Is listed among the servers; by itself first, or by any other."""
        place, clock, encryption = self._place, SystemClock(), self._encryption
        me, replica = place.me, self._replica
        about = {
            "name": me.name, "host": me.host, "port": me.port, "node_port": me.node_port,
            "pid": os.getpid(),
        }  # fmt: skip
        await keep_present(
            server_key(me.name), about, [(me.host, me.node_port)], lambda: place.hello(KEYS),
            clock, os.urandom, None if encryption is None else encryption.nodes,
            lambda: {"lacks": gather.lacks, "leads": replica.term if replica.leader else 0},
        )  # fmt: skip

    async def until(self, void: Awaitable[str]) -> None:
        """Raises NoMember a moment after this server has seen, or was told, that it is no member
        any more, so that whoever asked for it gets the answer. Who was left behind has nothing to
        answer: the cluster has not asked him."""
        why = await void
        if why != LEFT_BEHIND:
            await asyncio.sleep(FAREWELL)
        raise NoMember(what_to_do(why, self._place.me.name))

    async def give_lead_away(self) -> None:
        """So that nobody has to wait for an election when this server stops."""
        replica = self._replica
        if not replica.leader or not self._steward.heirs():
            return
        with contextlib.suppress(GrampusError, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._steward.give_lead(replica.term)


def what_to_do(why: str, name: str) -> str:
    if why != OLDER:
        return why
    return (
        f"{why}; say on another server: grampus cluster replace {name}, empty this folder, and let"
        " it join anew"
    )
