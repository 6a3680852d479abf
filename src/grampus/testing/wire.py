"""A connection between two simulated processes: bytes in order, late, until it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grampus.testing.world import ProcessLoop, World


class Port:
    """Stands for a listening socket."""

    def __init__(self, number: int) -> None:
        self.number = number

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self.number

    def listen(self, backlog: int) -> None:
        return

    def close(self) -> None:
        return


class Listener:
    """Stands for an asyncio.Server."""

    def __init__(
        self,
        world: World,
        loop: ProcessLoop,
        factory: Callable[[], Any],
        port: int,
    ) -> None:
        self.world = world
        self.loop = loop
        self.factory = factory
        self._port = port

    def close(self) -> None:
        self.world.listeners.pop(self._port, None)

    async def wait_closed(self) -> None:
        return


class Wire(asyncio.Transport):
    """One end. `attach` gives it the protocol that hears."""

    def __init__(self, world: World, loop: ProcessLoop) -> None:
        super().__init__()
        self.world = world
        self.loop = loop
        self._peer: Wire | None = None
        self._protocol: Any = None
        self._closing = False
        self._over = False
        self._reading = True
        self._held: list[bytes] = []
        #: Nothing that was sent earlier may arrive later.
        self._arrives = 0.0
        #: What waits for a partition to heal, in order.
        self._dark: list[Callable[[], None]] = []

    @classmethod
    def pair(cls, world: World, one: ProcessLoop, other: ProcessLoop) -> tuple[Wire, Wire]:
        a, b = cls(world, one), cls(world, other)
        a._peer, b._peer = b, a
        world.wires += (a, b)
        return a, b

    def attach(self, factory: Callable[[], Any]) -> None:
        if not self._over:
            self._protocol = factory()
            self._protocol.connection_made(self)

    def break_(self) -> None:
        """What is on its way is lost, and both ends learn of it, each at its own time."""
        for end in (self, self._peer):
            if end is not None and not end._over:
                end._over = True
                self.world.after(
                    self.world.rng.uniform(0, 0.2), lambda end=end: end._tell(True)  # type: ignore[misc]
                )  # fmt: skip

    def vanish(self) -> None:
        """The process of this end is gone; what it wrote arrives, then the end."""
        if not self._over:
            self._over = True
            self._leave()
            if self._peer is not None:
                self._send(self._peer._ended)

    # -- the other end's doings, in this process ------------------------------------------------

    def _send(self, arrive: Callable[[], None]) -> None:
        peer = self._peer
        dark = peer is not None and self.world.severed(self.loop.name, peer.loop.name)
        if dark or self._dark:
            if not self._dark:
                self.world.after(0.1, self._try_again)
            self._dark.append(arrive)
            return
        rng = self.world.rng
        late = rng.uniform(0.00005, 0.0005) if rng.random() < 0.9 else rng.uniform(0, 0.3)
        self._arrives = max(self._arrives, self.world.time + late)
        self.world.after(self._arrives - self.world.time, arrive)

    def _try_again(self) -> None:
        dark, self._dark = self._dark, []
        for arrive in dark:
            self._send(arrive)

    def _come(self, data: bytes) -> None:
        if self._over or not self.loop.alive:
            return
        if not self._reading:
            self._held.append(data)
        else:
            self.loop.call_soon(self._hear, data)

    def _hear(self, data: bytes) -> None:
        if not self._over and self._protocol is not None:
            self._protocol.data_received(data)

    def _ended(self) -> None:
        """The other end has closed."""
        if not self._over:
            self._over = True
            self._tell(False)

    def _tell(self, reset: bool) -> None:
        self._leave()
        if self.loop.alive and self._protocol is not None:
            error = ConnectionResetError("reset") if reset else None
            self.loop.call_soon(self._protocol.connection_lost, error)

    def _leave(self) -> None:
        if self in self.world.wires:
            self.world.wires.remove(self)

    # -- asyncio.Transport ----------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if not self._over and not self._closing and self._peer is not None and self.loop.alive:
            peer, sent = self._peer, bytes(data)
            self._send(lambda: peer._come(sent))

    def close(self) -> None:
        if self._closing or self._over:
            return
        self._closing = self._over = True
        self._tell(False)
        if self._peer is not None and self.loop.alive:
            self._send(self._peer._ended)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing or self._over

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        held, self._held = self._held, []
        for data in held:
            self.loop.call_soon(self._hear, data)

    def is_reading(self) -> bool:
        return self._reading

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return
