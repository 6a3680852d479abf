"""Who writes without a pause to a simulated cluster, and what has to be true in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grampus.cluster.commands import Put, encode_command
from grampus.errors import GrampusError, NoQuorum
from grampus.testing.cluster import SimCluster
from grampus.testing.server import SimServer


class Writer:
    """One write after the other, at one server; what came of each, and how long it took."""

    def __init__(self, cluster: SimCluster, server: SimServer, key: bytes, size: int = 8) -> None:
        self._world = cluster.world
        self._server = server
        self._key, self._size = key, size
        self.outcomes: list[tuple[float, float, object]] = []
        self.over = False
        server.loop.begin(self._run())

    async def _run(self) -> None:
        number = 0
        while not self.over:
            number, begun = number + 1, self._world.time
            outcome = await put(self._server, number, self._key, self._size)
            self.outcomes.append((begun, self._world.time, outcome))
            await asyncio.sleep(0.01)

    def since(self, begun: float) -> list[object]:
        return [outcome for at, _, outcome in self.outcomes if at >= begun]

    def longest(self) -> float:
        return max(end - begun for begun, end, _ in self.outcomes)


async def put(server: SimServer, number: int, key: bytes, size: int = 8) -> object:
    value = (b"%d " % number).ljust(size, b".")
    try:
        if server.replica is None:
            return NoQuorum("it does not run")
        (answer,) = await server.replica.propose([encode_command(Put(number, key, value))])
        return answer
    except GrampusError as error:
        return error


def agree(cluster: SimCluster, within: float = 30.0) -> None:
    """All that is committed is applied everywhere, and the same everywhere."""
    servers = cluster.open()

    def same() -> bool:
        found = {s.replica.applied_index for s in servers if s.replica is not None}
        last = {s.replica.last_index for s in servers if s.replica is not None}
        return found == last and len(found) == 1 and cluster.leader() is not None

    cluster.world.run(cluster.world.time + within, lambda: cluster._look() or same())
    assert same()
    sums = {server.ledger.checksum() for server in servers if server.ledger is not None}
    assert len(sums) == 1


def within(cluster: SimCluster, seconds: float, what: Callable[[], bool]) -> None:
    cluster.world.run(cluster.world.time + seconds, lambda: cluster._look() or what())
    assert what(), f"not within {seconds:g} s"
