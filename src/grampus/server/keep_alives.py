"""Keep-alives that come to a server which does not lead: they are passed on to the one that does.

Rule: only the leader confirms that a session lives. What it says goes back as it is; to ask at
another server is up to the holder, who counts the time.
"""

from __future__ import annotations

import asyncio
import os

from grampus.clock import SystemClock
from grampus.cluster.client import ClusterClient
from grampus.cluster.desk import KEYS
from grampus.cluster.server import ClusterServer
from grampus.consensus.port import Replica
from grampus.rpc.tls import Tls
from grampus.server.arrival import Place

#: Seconds until it is not confirmed.
WITHIN = 2.5


class KeepAlives:
    """Connections to other servers live in `tasks`, until `close`."""

    def __init__(
        self,
        keys: ClusterServer,
        replica: Replica,
        place: Place,
        tasks: asyncio.TaskGroup,
        tls: Tls | None,
    ) -> None:
        self._keys = keys
        self._replica = replica
        me = place.me
        # This server tells who leads.
        self._client = ClusterClient(
            [(me.host, me.node_port)], lambda: place.hello(KEYS), SystemClock(), os.urandom, tasks,
            tls,
        )  # fmt: skip

    async def keep(self, session: int) -> None:
        """Raises SessionUnknown, and what says that nobody has confirmed it."""
        if self._replica.leader:
            await self._keys.keep_alive(session)
        else:
            await self._client.keep_alive(session, WITHIN)

    def close(self) -> None:
        self._client.close()
