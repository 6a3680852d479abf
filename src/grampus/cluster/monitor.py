"""How this process is, told to the cluster: when it is there, when that has changed, now and then.

Rules: each telling is an entry of the log on every server, so who is as he was says so rarely. The
key is ephemeral. The leader ends the session of a process that has gone silent, and the key with
it; so whoever is listed has been heard a moment ago, and nobody has to look at times. CPU and
memory are averages over the last minute, so that one peak decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from grampus.clock import Clock
from grampus.cluster.client import ClusterClient
from grampus.cluster.core.histories import Histories
from grampus.cluster.core.route import Address
from grampus.cluster.load import LoadAverage
from grampus.cluster.registrations import Registrations
from grampus.protocol import Hello
from grampus.rpc.tls import Tls

#: Seconds between two samples, and samples between two looks at whether there is news.
SAMPLE, LOOK = 1.0, 5
#: It is told anyway after so long, in ms.
ANYWAY = 15_000
#: What is news: so many percent of the machine more or less, and such a part of the memory.
CPU_NEWS, MEMORY_NEWS = 5, 0.05
#: Of the session, in ms: who is silent for so long is gone.
TTL = 10_000

SERVERS, WORKERS = b"/servers/", b"/workers/"


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a key, as JSON. Times in wall ms."""

    name: str
    #: The machine; of a server where it listens.
    host: str
    pid: int
    start_time: int
    #: When this was written.
    heartbeat: int
    #: Percent of the machine, and free bytes, averaged over the last minute.
    cpu: int
    memory: int
    #: Of what these are a part: processors, and bytes of memory that this process may use.
    cpus: float = 0
    total_memory: int = 0
    #: Of a server: its API, and where it listens for nodes.
    port: int | None = None
    node_port: int | None = None
    #: Of a worker.
    group: str | None = None
    slots: int | None = None
    #: Of a server: blobs that its ledger names and its folder lacks.
    lacks: int = 0
    #: Of the server that leads: in which term. Of two that say so the higher one leads.
    leads: int = 0


def is_news(told: About, now: About) -> bool:
    """Whether it is worth an entry of the log."""
    if not 0 <= now.heartbeat - told.heartbeat < ANYWAY:
        return True
    if abs(now.cpu - told.cpu) >= CPU_NEWS:
        return True
    if abs(now.memory - told.memory) >= MEMORY_NEWS * told.memory:
        return True
    return replace(now, heartbeat=told.heartbeat, cpu=told.cpu, memory=told.memory) != told


def server_key(name: str) -> bytes:
    return SERVERS + name.encode()


def worker_key(group: str, name: str) -> bytes:
    return WORKERS + group.encode() + b"/" + name.encode()


class ClusterMonitor:
    """Of one process. `about` are the fields of About that stay, `also` gives those that do not."""

    def __init__(
        self,
        registrations: Registrations,
        key: bytes,
        about: dict[str, Any],
        clock: Clock,
        load: LoadAverage | None = None,
        also: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._registrations = registrations
        self._key = key
        self._load = load or LoadAverage()
        cpus, total = self._load.capacity()
        self._about = about | {"cpus": cpus, "total_memory": total}
        self._also = also
        self._clock = clock
        self._started = clock.now()
        self._told: About | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registrations.run())
            while True:
                self.look()
                for _ in range(LOOK):
                    await asyncio.sleep(SAMPLE)
                    self._load.sample()

    def look(self) -> None:
        cpu, memory = self._load.average()
        now = self._clock.now()
        about = About(
            start_time=self._started, heartbeat=now, cpu=cpu, memory=memory,
            **self._about, **self._also(),
        )  # fmt: skip
        if self._told is None or is_news(self._told, about):
            self._told = about
            self._registrations.set(self._key, msgspec.json.encode(about))


async def keep_present(
    key: bytes,
    about: dict[str, Any],
    servers: Sequence[Address],
    hello: Callable[[], Hello],
    clock: Clock,
    entropy: Callable[[int], bytes],
    tls: Tls | None,
    also: Callable[[], dict[str, Any]] = dict,
    histories: Histories | None = None,
) -> None:
    """Until cancelled: this process is listed under `key`, as long as a server can be reached."""
    async with asyncio.TaskGroup() as tasks:
        client = ClusterClient(servers, hello, clock, entropy, tasks, tls, histories)
        try:
            name = key.decode().strip("/").replace("/", ".")
            registrations = Registrations(client, name, TTL)
            await ClusterMonitor(registrations, key, about, clock, also=also).run()
        finally:
            client.close()
