"""Wires between servers of one machine, each way by itself, that a test can cut: what is said then
arrives nowhere, and nobody is told. For those who may not make networks: see test_cluster_network.
"""

from __future__ import annotations

import asyncio
import threading
from itertools import permutations

from tests.ports import free_ports

#: From one server to another.
Way = tuple[str, str]
PIECE = 64 * 1024


class Wires:
    """A server that connects to another one takes the port of that way in place of the other's."""

    def __init__(self, ports: dict[str, int]) -> None:
        """`ports`: where each server listens for nodes."""
        self._listens = ports
        ways = list(permutations(ports, 2))
        self.ports: dict[Way, int] = dict(zip(ways, free_ports(len(ways)), strict=True))
        self._open = {way: asyncio.Event() for way in ways}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._up = threading.Event()
        self._over = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()

    def instead(self, name: str) -> dict[str, int]:
        """For that server: which port it takes in place of which."""
        return {str(self._listens[to]): self.ports[by, to] for by, to in self.ports if by == name}

    def cut(self, *ways: Way) -> None:
        """It is so when this returns."""
        done = threading.Event()
        for way in ways:
            self._loop.call_soon_threadsafe(self._open[way].clear)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(10)

    def mend(self) -> None:
        """All of them. What was on its way arrives late, as when TCP says it again."""
        for event in self._open.values():
            self._loop.call_soon_threadsafe(event.set)

    def around(self, name: str) -> list[Way]:
        """All that lead to that server or away from it."""
        return [way for way in self.ports if name in way]

    def start(self) -> None:
        self.mend()
        self._thread.start()
        assert self._up.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        servers = []
        for way, port in self.ports.items():

            def connected(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way = way
            ) -> None:
                link = asyncio.ensure_future(self._link(way, reader, writer))
                self._links.add(link)
                link.add_done_callback(self._links.discard)

            servers.append(await asyncio.start_server(connected, "127.0.0.1", port))
        self._up.set()
        await self._over.wait()
        for server in servers:
            server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection from `way[0]` to `way[1]`: until one of them ends it."""
        there: asyncio.StreamWriter | None = None
        try:
            await self._open[way].wait()
            back, there = await asyncio.open_connection("127.0.0.1", self._listens[way[1]])
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(way, reader, there))
                both.create_task(self._carry((way[1], way[0]), back, writer))
        except* OSError:
            pass  # one of them is gone: so is the connection
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()

    async def _carry(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(PIECE):
            await self._open[way].wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("it was closed")
