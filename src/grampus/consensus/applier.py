"""Applies committed entries, in order, one at a time, and tells who waits for them.

What is light is applied on the event loop, everything else and every checkpoint on a thread, for
the reasons in `writer`. The ready loop goes on meanwhile: a slow `apply` holds up no heartbeat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from grampus.consensus.members import Conf, Members, decode_change
from grampus.consensus.port import Replicated
from grampus.consensus.record import NORMAL
from grampus.consensus.writer import Light, Limits

T = TypeVar("T")
#: As Raft gives it: index, term, kind, data, context.
Committed = tuple[int, int, int, bytes, bytes]
_DECODER = msgspec.msgpack.Decoder(list[bytes])
#: Entries applied on the loop before others get their turn.
TURN = 16


class Listening(Protocol):
    """Who is told, on the event loop."""

    def change(self, kind: int, data: bytes) -> Conf:
        """Raft learns that the change of members is applied; the configuration from then on."""
        ...

    def applied(self, index: int, term: int, results: list[object], events: list[object]) -> None:
        """The entry is applied."""
        ...

    def members_changed(self, members: Members) -> None:
        """They have changed, as of the entry that is told next."""
        ...

    def checkpointed(self, index: int) -> None:
        """Everything up to `index` is durable in the machine's own files."""
        ...


class Applier:
    """`put` on the loop; `run` is the only one that uses the machine while it runs."""

    def __init__(
        self,
        machine: Replicated,
        listening: Listening,
        limits: Limits,
        light: Light | None,
        thread: Callable[..., Awaitable[Any]],
    ) -> None:
        self._machine = machine
        self._listening = listening
        self._limits = limits
        self._light = light
        self._thread = thread
        self._queue: deque[Committed] = deque()
        self._wake = asyncio.Event()
        #: Bytes committed and not applied.
        self.backlog = 0
        self._since_entries = self._since_bytes = 0
        self._fresh = True
        self._dirty = False

    def put(self, entries: Sequence[Committed]) -> None:
        self._queue.extend(entries)
        self.backlog += sum(len(entry[3]) for entry in entries)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. What the machine raises comes out."""
        while True:
            turn = 0
            while self._queue:
                await self._apply(self._queue.popleft())
                turn += 1
                if turn % TURN == 0:
                    await asyncio.sleep(0)
            self._wake.clear()
            if not self._dirty:
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(self._limits.checkpoint_idle):
                    await self._wake.wait()
            except TimeoutError:
                await self.checkpoint()

    async def _apply(self, entry: Committed) -> None:
        index, term, kind, data, context = entry
        results: list[object] = []
        events: list[object] = []
        if kind != NORMAL:
            conf = self._listening.change(kind, data)
            before = Members.decode(self._machine.members)
            after = before.after(conf, decode_change(context))
            await self._thread(self._machine.apply_members, index, term, after.encode())
            self._listening.members_changed(after)
        else:
            commands = _DECODER.decode(data) if data else []
            if self._light is not None and not self._fresh and self._light(commands):
                results, events = self._machine.apply(index, term, commands)
            else:
                results, events = await self._thread(self._machine.apply, index, term, commands)
                self._fresh = False
            if len(results) != len(commands):
                raise RuntimeError(
                    f"the machine answered entry {index} of {len(commands)} commands with"
                    f" {len(results)} results"
                )
        self.backlog -= len(data)
        self._dirty = True
        self._listening.applied(index, term, results, events)
        self._since_entries += 1
        self._since_bytes += len(data)
        if (
            self._since_entries >= self._limits.checkpoint_entries
            or self._since_bytes >= self._limits.checkpoint_bytes
        ):
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Put off while readers are in the way. Not beside `run`, but from within or after it."""
        self._since_entries = self._since_bytes = 0
        self._fresh = True
        index = await self._thread(self._machine.checkpoint)
        if index is not None:
            self._dirty = False
            self._listening.checkpointed(index)
