"""A session as its holder has it: kept alive by one task, and given up in time.

Rule: once its time is over here, nothing is asked in its name any more, whatever a server may say
later (`model.holder`). Its writes are numbered, so that each happens once, whoever has to be asked
again; so many may wait for answers as a server remembers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from grampus.clock import Clock
from grampus.cluster import locks
from grampus.cluster.commands import Compare, Deleted, Op, Origin, TxnDone, Written
from grampus.cluster.limits import WINDOW, check_key, check_txn, check_value
from grampus.cluster.queries import Page, Piece
from grampus.cluster.requests import Answer, DeleteKeys, PutKey, Request, Transact
from grampus.errors import GrampusError, SessionUnknown
from grampus.model.holder import Holder

if TYPE_CHECKING:
    from grampus.cluster.client import ClusterClient

log = logging.getLogger("grampus.cluster")

#: Seconds for a keep-alive; a short session has a part of its time. The client gives up a little
#: earlier by itself.
KEEP, PART, OWN = 1.5, 4, 0.9
#: Seconds for the end of a session: it would end by itself.
GOODBYE = 2.0

A = TypeVar("A", bound=Answer)


class HeldSession:
    """Made by `ClusterClient.open_session`."""

    def __init__(
        self,
        client: ClusterClient,
        session: int,
        ttl: int,
        sent: int,
        clock: Clock,
        register: dict[HeldSession, None],
    ) -> None:
        self._client = client
        self._id = session
        self._ttl = ttl
        self._clock = clock
        self._holder = Holder(ttl, sent)
        self._register = register
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        #: Numbers of requests under way, in order.
        self._open: dict[int, None] = {}
        self._next = 1
        self._settled = asyncio.Event()

    @property
    def session(self) -> int:
        """Its id."""
        return self._id

    @property
    def lives(self) -> bool:
        """Whether what it owns is still ours. Ask right before each thing that relies on it."""
        return self._holder.lives(self._clock.ticks()) and not self._over.is_set()

    def check(self) -> None:
        """Raises SessionUnknown."""
        if not self.lives:
            raise SessionUnknown(
                f"session {self._id} is over: its keys and locks are gone; begin a new one"
            )

    async def wait_over(self) -> None:
        """Returns once it is over, closed or lost."""
        await self._over.wait()

    # writes

    async def put(self, key: bytes, value: bytes, *, ephemeral: bool = False) -> Written:
        """An ephemeral key is gone with this session."""
        check_key(key)
        check_value(value)
        async with _Numbered(self) as origin:
            return await self._ask(PutKey(key, value, origin, ephemeral), Written)

    async def delete(self, key: bytes) -> Deleted:
        check_key(key)
        async with _Numbered(self) as origin:
            return await self._ask(DeleteKeys(key, origin=origin), Deleted)

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op] = ()
    ) -> TxnDone:
        check_txn(compare, then, orelse, self._id)
        async with _Numbered(self) as origin:
            request = Transact(tuple(compare), tuple(then), tuple(orelse), origin)
            return await self._ask(request, TxnDone)

    async def _ask(self, request: Request, kind: type[A]) -> A:
        try:
            return await self._client.ask_in_session(request, kind)
        except SessionUnknown:
            self._lost("a server says so")
            raise

    # locks

    async def lock(self, name: str, patience: float) -> int:
        """Waits for the lock for `patience` seconds; its fencing token. See `locks.take`."""
        return await locks.take(self, name, patience)

    async def unlock(self, name: str) -> None:
        """Raises LockLost when it was not held any more."""
        await locks.give_up(self, name)

    async def range(self, prefix: bytes, limit: int = 100, after: bytes = b"") -> Page:
        return await self._client.range(prefix, limit, after, stale=True)

    async def changes(self, prefix: bytes, first: int) -> Piece:
        self.check()
        return await self._client.changes(prefix, first)

    # its life

    def kept_by(self, tasks: asyncio.TaskGroup) -> None:
        self._register[self] = None
        self._task = tasks.create_task(self._keep())

    async def _keep(self) -> None:
        """Until it is over."""
        holder, clock = self._holder, self._clock
        silent = False
        while holder.lives(now := clock.ticks()):
            if now < holder.due:
                await asyncio.sleep((min(holder.due, holder.deadline) - now) / 1000)
                continue
            holder.sent(now)
            within = min(KEEP, self._ttl / PART / 1000, (holder.deadline - now) / 1000)
            try:
                async with asyncio.timeout(within):
                    # In less time than there is, or nobody would know who has not answered.
                    await self._client.keep_alive(self._id, OWN * within)
            except SessionUnknown:
                return self._lost("a server says so")
            except (GrampusError, TimeoutError) as error:
                if not silent:
                    log.info("session %d is not confirmed: %s", self._id, error)
                silent = True
                holder.unanswered(clock.ticks())
            else:
                silent = False
                holder.confirmed(now, clock.ticks())
        self._lost("no server has confirmed it in time")

    def _lost(self, why: str) -> None:
        if not self._over.is_set():
            log.warning("session %d is over: %s", self._id, why)
        self._holder.lost()
        self._end()

    def _end(self) -> None:
        self._over.set()
        self._settled.set()
        self._register.pop(self, None)

    def leave(self) -> None:
        """Leaves it to its time."""
        self._holder.lost()
        self._end()
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Its keys are gone when this returns. Raises SessionUnknown when it was over before, and
        what a request raises: then it ends by its time."""
        self.check()
        self.leave()
        await self._client.end_session(self._id, GOODBYE)

    # numbers

    async def number(self) -> Origin:
        """The next one, once there is room in the window."""
        while self._next - self._acked > WINDOW and self.lives:
            self._settled.clear()
            await self._settled.wait()
        self.check()
        number, self._next = self._next, self._next + 1
        self._open[number] = None
        return Origin(self._id, number, self._acked)

    @property
    def _acked(self) -> int:
        """All up to this one were answered, or are no longer waited for: copies of them that come
        late are refused."""
        return next(iter(self._open), self._next) - 1

    def settle(self, number: int) -> None:
        del self._open[number]
        self._settled.set()


class _Numbered:
    """A request under a number of its session."""

    def __init__(self, session: HeldSession) -> None:
        self._session = session
        self._number = 0

    async def __aenter__(self) -> Origin:
        origin = await self._session.number()
        self._number = origin.seq
        return origin

    async def __aexit__(self, *_: object) -> None:
        self._session.settle(self._number)
