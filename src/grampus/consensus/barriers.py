"""Rounds of read index: one question to a majority serves everybody who waits for it.

Rule: who asks is answered by a round that began after the question. A round that is lost (Raft
drops them silently when leadership changes) is nobody's answer: who waits asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Rounds under way at a time; who comes later shares the next one.
ROUNDS = 4


class Barriers:
    """Used on the event loop. A future's result is the index that a read has to wait for."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[int]] = []
        self._rounds: dict[bytes, list[asyncio.Future[int]]] = {}
        self._next = 0
        self._applied = 0
        self._until: list[tuple[int, asyncio.Future[None]]] = []

    def ask(self) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def begin(self, read_index: Callable[[bytes], bool]) -> None:
        """Starts a round for those who wait, if this server can: else they go on waiting."""
        self._waiting = [future for future in self._waiting if not future.done()]
        if not self._waiting or len(self._rounds) >= ROUNDS:
            return
        self._next += 1
        context = self._next.to_bytes(8, "big")
        if read_index(context):
            self._rounds[context], self._waiting = self._waiting, []

    def confirmed(self, index: int, context: bytes) -> None:
        for future in self._rounds.pop(context, ()):
            if not future.done():
                future.set_result(index)

    def give_up(self, error: Exception) -> None:
        """Leadership is lost: no round that is under way will be answered."""
        for futures in [self._waiting, *self._rounds.values()]:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # seen, even if nobody waits for it any more
        self._waiting = []
        self._rounds.clear()

    def stop(self, error: Exception) -> None:
        """Nothing more is applied here."""
        self.give_up(error)
        for _, future in self._until:
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._until = []

    def lost(self) -> None:
        """Rounds of which nothing was heard for long: they make room for new ones."""
        self._rounds = {c: f for c, f in self._rounds.items() if not all(x.done() for x in f)}

    # -- waiting for the machine

    @property
    def waited(self) -> bool:
        """Somebody waits until an entry is applied here."""
        return bool(self._until)

    def applied(self, index: int) -> None:
        self._applied = index
        if self._until and self._until[0][0] <= index:
            for at, future in self._until:
                if at <= index and not future.done():
                    future.set_result(None)
            self._until = [(at, future) for at, future in self._until if at > index]

    async def until(self, index: int) -> None:
        """Returns once the entry at `index` is applied here. The caller sets the deadline."""
        if index > self._applied:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._until.append((index, future))
            self._until.sort(key=lambda waiting: waiting[0])
            try:
                await future
            finally:
                if not future.done() or future.cancelled():  # its caller waits no longer
                    self._until = [one for one in self._until if one[1] is not future]
