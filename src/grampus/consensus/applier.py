"""Applies committed entries, in order, one at a time, and tells who waits for them.

What is light is applied on the event loop, in the turn that commits it; everything else and every
checkpoint on a thread, for the reasons in `writer`. The ready loop goes on meanwhile: a slow
`apply` holds up no heartbeat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from grampus.consensus.ahead import PART
from grampus.consensus.members import Conf, Members, decode_change
from grampus.consensus.record import NORMAL
from grampus.consensus.writer import Light, Limits

T = TypeVar("T")
#: As Raft gives it: index, term, kind, data, context.
Committed = tuple[int, int, int, bytes, bytes]
_DECODER = msgspec.msgpack.Decoder(list[bytes])
#: Entries applied on the loop before others get their turn.
TURN = 16


class Machine(Protocol):
    """What entries are applied to: of a `Replicated`, what is needed for that."""

    @property
    def members(self) -> bytes: ...

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]: ...

    def apply_members(self, index: int, term: int, members: bytes) -> None: ...

    def checkpoint_part(self) -> Callable[[], None] | None: ...

    def checkpoint(self) -> int | None: ...


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
    """`put` on the loop; beside `run`, or in its pauses, nobody else uses the machine."""

    def __init__(
        self,
        machine: Machine,
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
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Committed] = deque()
        self._wake = asyncio.Event()
        #: `run` has nothing to do: what is light need not wait for it.
        self._idle = False
        #: Bytes committed and not applied.
        self.backlog = 0
        self._since_entries = self._since_bytes = 0
        self._fresh = True
        #: Something is not checkpointed yet; and a checkpoint comes next.
        self._dirty = self._due = False
        #: The first part of it is under way.
        self._ahead: asyncio.Future[None] | None = None
        #: When something was applied last; the timer rings in a pause after it.
        self._timer: asyncio.TimerHandle | None = None
        self._newest = 0.0

    def put(self, entries: Sequence[Committed]) -> None:
        """Raises what the machine raises: it is of no use then."""
        self._queue.extend(entries)
        self.backlog += sum(len(entry[3]) for entry in entries)
        if self._idle:
            self._apply_light()
        if self._queue or self._due:
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled. What the machine raises comes out."""
        try:
            while True:
                while self._queue or self._due:
                    if self._due:
                        await self.checkpoint()
                    elif self._apply_light():
                        await asyncio.sleep(0)
                    else:
                        await self._apply(self._queue.popleft())
                self._wake.clear()
                self._idle = True
                await self._wake.wait()
                self._idle = False
        finally:
            self._idle = False
            if self._timer is not None:
                self._timer.cancel()

    def _apply_light(self) -> int:
        """Those that are next and light, here and now; how many."""
        count = 0
        while self._queue and not self._due and count < TURN:
            index, term, kind, data, _ = self._queue[0]
            if kind != NORMAL or self._light is None or self._fresh:
                break
            commands = _DECODER.decode(data) if data else []
            if not self._light(commands):
                break
            self._queue.popleft()
            results, events = self._machine.apply(index, term, commands)
            self._applied(index, term, commands, results, events, len(data))
            count += 1
        return count

    async def _apply(self, entry: Committed) -> None:
        """On the thread."""
        index, term, kind, data, context = entry
        if kind != NORMAL:
            conf = self._listening.change(kind, data)
            before = Members.decode(self._machine.members)
            after = before.after(conf, decode_change(context))
            await self._thread(self._machine.apply_members, index, term, after.encode())
            self._listening.members_changed(after)
            self._applied(index, term, [], [], [], len(data))
            return
        commands = _DECODER.decode(data) if data else []
        results, events = await self._thread(self._machine.apply, index, term, commands)
        self._fresh = False
        self._applied(index, term, commands, results, events, len(data))

    def _applied(
        self,
        index: int,
        term: int,
        commands: Sequence[bytes],
        results: list[object],
        events: list[object],
        size: int,
    ) -> None:
        if len(results) != len(commands):
            raise RuntimeError(
                f"the machine answered entry {index} of {len(commands)} commands with"
                f" {len(results)} results"
            )
        self.backlog -= size
        self._listening.applied(index, term, results, events)
        self._since_entries += 1
        self._since_bytes += size
        self._dirty = True
        self._newest = self._loop.time()
        self._set_timer(self._newest + self._limits.checkpoint_idle)
        if self._is_much(1):
            self._begin_checkpoint()

    def _is_much(self, part: int) -> bool:
        """So much is to be checkpointed as makes that due, or one part of so many of it."""
        return (
            self._since_entries * part >= self._limits.checkpoint_entries
            or self._since_bytes * part >= self._limits.checkpoint_bytes
        )

    def _begin_checkpoint(self) -> None:
        """It comes next, or once its first part is over: entries are applied meanwhile."""
        if self._due or self._ahead is not None:
            return
        part = self._machine.checkpoint_part() if self._is_much(PART) else None
        if part is None:
            self._due = True
            return
        # It may move all that there is: then the next entry begins the WAL anew, too.
        self._fresh = True
        self._ahead = self._loop.run_in_executor(None, part)
        self._ahead.add_done_callback(self._part_over)

    def _part_over(self, ahead: asyncio.Future[None]) -> None:
        self._due = True
        self._wake.set()

    async def settle(self) -> None:
        """After `run`: nothing of it goes on on another thread. Raises nothing."""
        if self._ahead is not None:
            await asyncio.wait([self._ahead])
            self._ahead.exception()  # the last checkpoint will meet the same

    def _set_timer(self, when: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """Nothing may have come for so long."""
        self._timer = None
        if not self._dirty:
            return
        now, pause = self._loop.time(), self._limits.checkpoint_idle
        if self._newest + pause > now:
            self._set_timer(self._newest + pause)
        elif self._idle:
            self._begin_checkpoint()
            self._wake.set()
        else:
            self._set_timer(now + pause)

    async def checkpoint(self) -> None:
        """Put off while readers are in the way. Not beside `run`, but from within or after it."""
        self._due = False
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            await ahead
        self._since_entries = self._since_bytes = 0
        self._fresh = True
        index = await self._thread(self._machine.checkpoint)
        if index is None:
            self._set_timer(self._loop.time() + self._limits.checkpoint_idle)
        else:
            self._dirty = False
            self._listening.checkpointed(index)
