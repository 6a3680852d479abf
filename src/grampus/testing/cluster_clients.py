"""Processes that use a simulated cluster as a worker or a service does, through a `ClusterClient`:
each keeps a session, contends for locks, writes while it holds one, and watches keys.

Rule: before each thing that relies on a session its holder asks whether it lives, and believes it;
`KeysWatch` says whether it was right. In the end each shows once more that it gets a lock, and has
been told of everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from grampus.cluster.client import ClusterClient
from grampus.cluster.commands import PutOp
from grampus.cluster.core.route import Address
from grampus.cluster.desk import KEYS
from grampus.cluster.held_session import HeldSession
from grampus.errors import Compacted, GrampusError, LockLost, Refused
from grampus.protocol import PROTOCOL_VERSION, Hello
from grampus.testing.keys_watch import OWN, KeysWatch
from grampus.testing.server import CLUSTER
from grampus.testing.steady_clock import SteadyClock
from grampus.testing.world import ProcessLoop, World

#: How many there are, the locks that they want, what they watch, times to live of sessions in ms.
CLIENTS = 3
LOCKS = ("one", "two")
PREFIXES = (b"", b"k", OWN, b"/locks/")
TTLS = (1_000, 3_000, 6_000)


class SimClient:
    """One process, until it is killed."""

    def __init__(
        self, loop: ProcessLoop, watch: KeysWatch, servers: list[Address], unique: Callable[[], int]
    ) -> None:
        self.loop = loop
        self.name = loop.name
        #: It is to show once more that all works, and then to begin nothing new.
        self.resting = False
        self.rested = False
        #: Everything up to this revision was told to its watcher.
        self.told = 0
        self.lock = ""
        self._world = loop.world
        self._clock = SteadyClock(loop.world)
        self._watch = watch
        self._servers = servers
        self._unique = unique
        self._session: HeldSession | None = None
        self._client: ClusterClient | None = None

    @property
    def relies_on(self) -> int:
        session = self._session
        if session is None or not self.loop.alive or self.loop.held_until > self._world.time:
            return 0
        holder = session._holder  # asking it would end it for good, when its time is over
        lives = not holder.over and self._clock.ticks() < holder.deadline
        return session.session if lives else 0

    def knows(self, server: Address) -> bool:
        return self._client is not None and server in self._client._route.known

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            client = self._client = ClusterClient(
                self._servers, self._hello, self._clock, self._world.rng.randbytes, tasks
            )
            tasks.create_task(self._follow(client))
            while not self.rested:
                await asyncio.sleep(self._world.rng.uniform(0, 0.5))
                try:
                    await self._live(client)
                except GrampusError as error:
                    self._watch.seen[f"client: {type(error).__name__}"] += 1
                finally:
                    self._let_go()

    def _hello(self) -> Hello:
        return Hello(PROTOCOL_VERSION, KEYS, "worker", self.name, CLUSTER, "secret")

    # -- sessions and locks

    async def _live(self, client: ClusterClient) -> None:
        """One session, until it is lost or closed."""
        rng = self._world.rng
        session = self._session = await client.open_session(self.name, rng.choice(TTLS))
        while session.lives:
            resting = self.resting
            held = await self._hold(session)
            if held if resting else rng.random() < 0.1:
                await session.close()
                self.rested = resting
                return
            await asyncio.sleep(rng.expovariate(2.0))
        self._watch.seen["sessions lost"] += 1

    def _let_go(self) -> None:
        session, self._session, self.lock = self._session, None, ""
        if session is not None and session.lives:
            session.leave()

    async def _hold(self, session: HeldSession) -> bool:
        """Takes a lock, works, and gives it up; whether all of it went well."""
        rng = self._world.rng
        name = rng.choice(LOCKS)
        try:
            token = await session.lock(name, rng.choice([0.5, 5.0]))
            session.check()
            self._watch.took(name, token, self.name)
            self.lock = name
            for _ in range(rng.randint(0, 3)):
                await self._write(session)
                await asyncio.sleep(rng.expovariate(5.0))
                session.check()
            self.lock = ""
            await session.unlock(name)
        except LockLost as error:
            over = session.session in self._watch.over
            raise (error if over else AssertionError(f"{self.name} is told: {error}")) from None
        except Refused:
            return False
        return True

    async def _write(self, session: HeldSession) -> None:
        """One key, or two of them at once."""
        keys = [OWN + self.name.encode() + part for part in (b"", b"/more")]
        puts = [PutOp(key, b"%d" % self._unique()) for key in keys]
        if self._world.rng.random() < 0.5:
            revision = (await session.put(puts[0].key, puts[0].value)).revision
            puts = puts[:1]
        else:
            revision = (await session.txn((), puts)).revision
        for put in puts:
            self._watch.wrote(put.value, revision)

    # -- watching

    async def _follow(self, client: ClusterClient) -> None:
        prefix = self._world.rng.choice(PREFIXES)
        first: int | None = None
        while True:
            try:
                async with aclosing(client.watch(prefix, first)) as pieces:
                    async for piece in pieces:
                        self._watch.told(self.name, prefix, first, piece)
                        self.told, first = piece.until, piece.until + 1
            except Compacted as error:
                first = await self._begin_again(client, prefix, first, error)
            except GrampusError as error:
                self._watch.seen[f"watcher: {type(error).__name__}"] += 1
                await asyncio.sleep(0.5)

    async def _begin_again(
        self, client: ClusterClient, prefix: bytes, first: int | None, error: Compacted
    ) -> int | None:
        """Where to go on from; as before, when nobody answers."""
        self._watch.seen["compacted"] += 1
        assert first is None or first < error.first, f"{first} can be watched: {error}"
        try:
            page = await client.range(prefix, 1_000)
        except GrampusError:
            return first
        assert first is None or page.revision >= first - 1, "a client sees an older state"
        self._watch.listed(self.name, prefix, page)
        self.told = page.revision
        return page.revision + 1


class Clients:
    """All of them: begun, killed, and begun again."""

    def __init__(
        self, world: World, watch: KeysWatch, servers: Callable[[], list[Address]]
    ) -> None:
        self._world = world
        self._watch = watch
        self._servers = servers
        self._resting = False
        self._values = 0
        self.all: dict[str, SimClient] = {}

    @property
    def names(self) -> list[str]:
        return list(self.all)

    def begin(self, count: int = CLIENTS) -> None:
        for number in range(count):
            self._start(f"client{number}")

    def _start(self, name: str) -> None:
        loop = self._world.process(name)
        client = self.all[name] = SimClient(loop, self._watch, self._servers(), self._unique)
        client.resting = self._resting
        loop.begin(client.run())

    def _unique(self) -> int:
        self._values += 1
        return self._values

    def look(self) -> None:
        self._watch.look(self.all.values())

    def kill(self, name: str) -> None:
        """Its session is left to its time; it comes again."""
        client = self.all[name]
        if client.loop.alive:
            self._world.kill(client.loop)
            self._world.after(self._world.rng.choice([0.01, 1.0, 4.0]), lambda: self._start(name))

    def rest(self) -> None:
        """Nothing fails any more. Who knows none of the servers that there are is told of them: all
        that it knew may have been replaced before it heard of others."""
        self._resting = True
        servers = self._servers()
        for name, client in self.all.items():
            client.resting = True
            if not any(client.knows(server) for server in servers):
                self.kill(name)

    def restless(self) -> str:
        for client in self.all.values():
            if not client.rested:
                return f"{client.name} gets no lock, or no session"
            if client.told < self._watch.revision:
                return f"{client.name} was told of {client.told} of {self._watch.revision}"
        return ""
