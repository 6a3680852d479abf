"""A small cluster that has come together, for single cases."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from grampus.cluster.client import ClusterClient
from grampus.cluster.desk import KEYS
from grampus.protocol import PROTOCOL_VERSION, Hello
from grampus.testing.cluster import SimCluster, simulated
from grampus.testing.server import CLUSTER, SimServer
from grampus.testing.server_machine import Settings
from grampus.testing.steady_clock import SteadyClock


@contextlib.contextmanager
def three(tmp_path: Path, settings: Settings | None = None, size: int = 3) -> Iterator[SimCluster]:
    """A cluster of three, or so, that has come together; its end is checked by who uses it."""
    cluster = SimCluster(1, tmp_path)
    cluster.size, cluster.settings = size, settings or Settings()
    logging.disable(logging.CRITICAL)
    with simulated(cluster.world, cluster.settings):
        try:
            cluster.grow()
            cluster.world.run(cluster.world.time + 3.0)
            yield cluster
        finally:
            logging.disable(logging.NOTSET)
            cluster.close()


def roles(cluster: SimCluster) -> tuple[SimServer, SimServer, SimServer]:
    """The leader, and two followers."""
    leader = cluster.leader()
    assert leader is not None
    one, other = (server for server in cluster.open() if server is not leader)
    return leader, one, other


def a_client(cluster: SimCluster, tasks: asyncio.TaskGroup) -> ClusterClient:
    """Of the process that runs, which knows all servers."""
    world = cluster.world

    def hello() -> Hello:
        return Hello(PROTOCOL_VERSION, KEYS, "worker", "w", CLUSTER, "secret")

    servers = [(m.member.host, m.member.node_port) for m in cluster.machines.values()]
    return ClusterClient(servers, hello, SteadyClock(world), world.rng.randbytes, tasks)
