"""The metadata center of one server: what clients can ask of it, whichever way they come.

Rules: a write is answered after its commit, or with an error that says whether it happened. A read
is linearizable by a read barrier, unless it may be stale; and it never shows a state before one
that the client has seen. Nothing is kept here: keys, sessions and locks are in the ledger.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from msgspec import Struct

from grampus.clock import Clock
from grampus.cluster import locks
from grampus.cluster.commands import (
    Begin,
    Compare,
    Deleted,
    End,
    Op,
    Origin,
    TxnDone,
    Written,
)
from grampus.cluster.events import event_key
from grampus.cluster.feed import SILENCE, Feed, Question, Told
from grampus.cluster.limits import (
    SESSIONS_OF_ONE,
    check_key,
    check_name,
    check_prefix,
    check_ttl,
    end_of,
)
from grampus.cluster.queries import Page, Piece
from grampus.cluster.reads import KeyReads
from grampus.cluster.requests import NOW, Seen, View
from grampus.cluster.retention import KeyRetention
from grampus.cluster.sessions import SessionDriver
from grampus.cluster.values import KeyValue
from grampus.cluster.writes import Writes, encoded
from grampus.consensus.port import Replica, Stopped
from grampus.errors import (
    GrampusError,
    NoQuorum,
    Refused,
    WrongHistory,
)

#: Seconds: for a server that is behind, for a read barrier.
CATCH_UP = 1.0
BARRIER = 2.0
#: And for which it is known that a server hears of what is committed, or does not.
FRESH = 1.0


class Got(Struct, frozen=True):
    """`revision` is that of the ledger at which it was read."""

    revision: int
    item: KeyValue | None


class ClusterServer:
    """On a server. `run` keeps sessions and the house; all else works while the replica is open."""

    def __init__(
        self,
        replica: Replica,
        reads: KeyReads,
        clock: Clock,
        history: str,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._replica = replica
        self._reads = reads
        self._clock = clock
        self._entropy = entropy
        self.history = history
        self.feed = Feed(reads)
        #: Of `run`, while it runs.
        self._tasks: asyncio.TaskGroup | None = None
        self._listening = asyncio.Lock()
        #: When it was last looked whether this server hears, on the loop's clock; and why not.
        self._heard: tuple[float, NoQuorum | Stopped | None] = (-FRESH, None)
        self.sessions = SessionDriver(replica, reads, clock)
        self._retention = KeyRetention(replica, reads, clock)
        self.writes = Writes(replica, clock)
        #: Instances of sessions that are being opened, by node.
        self._opening: dict[str, Counter[str]] = {}
        replica.subscribe(self.feed.committed)
        replica.subscribe(self.sessions.committed)
        self.feed.start()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            group.create_task(self.writes.run())
            group.create_task(self.sessions.run())
            group.create_task(self._retention.run())
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    def close(self) -> None:
        """Ends all watches."""
        self.feed.close()

    @property
    def seen(self) -> Seen:
        return Seen(self.history, self.feed.revision)

    # reads

    async def get(self, key: bytes, view: View = NOW) -> Got:
        check_key(key)
        await self._settle(view)
        return Got(*self._reads.get(key))

    async def range(
        self, prefix: bytes, limit: int = 100, after: bytes = b"", view: View = NOW
    ) -> Page:
        """Keys that begin with `prefix`, in order, beyond `after`; at most `limit` and a MiB."""
        check_prefix(prefix)
        if after:
            check_key(after, "after")
        await self._settle(view)
        start = max(prefix, after + b"\0" if after else prefix)
        return await self._reads.range(start, end_of(prefix), limit)

    async def count(self, prefix: bytes, view: View = NOW) -> int:
        check_prefix(prefix)
        await self._settle(view)
        return await self._reads.count(prefix, end_of(prefix))

    async def watch(
        self, prefix: bytes, first: int | None = None, view: View = NOW, silence: float = SILENCE
    ) -> AsyncGenerator[Piece, None]:
        """What changes under `prefix` from revision `first` on; by default from now on.

        Begins with a piece that says up to where everything is told, if with nothing else.
        A piece without facts comes after `silence` seconds, too. Raises Compacted; and NoQuorum
        then, unless it may be stale: a server that is cut off hears of nothing."""
        check_prefix(prefix)
        await self._settle(view)
        after = self.feed.revision if first is None else max(first - 1, 0)
        self._reads.check_known(after)
        yield Piece(min(after, self.feed.revision), ())
        async with aclosing(self.feed.watch(prefix, end_of(prefix), after, silence)) as pieces:
            async for piece in pieces:
                if not piece.facts and not view.stale:
                    await self._hears()
                yield piece

    async def changes(
        self, prefix: bytes, first: int | None, wait: float, view: View = NOW
    ) -> Piece:
        """What changes under `prefix` from revision `first` on: the first of it, as soon as it is
        there, or nothing after `wait` seconds. Without `first` at once, where to go on from.

        Raises Compacted; NoQuorum when there is nothing and this server may be cut off: then it
        would have heard of nothing; Stopped when the server ends."""
        check_prefix(prefix)
        await self._settle(view)
        if first is None:
            return Piece(self.feed.revision, ())
        after = max(first - 1, 0)
        self._reads.check_known(after)
        async with aclosing(self.feed.watch(prefix, end_of(prefix), after, wait)) as pieces:
            async for piece in pieces:
                if not piece.facts:
                    await self._hears()
                return piece
        raise Stopped("the server stops: ask another one")

    def ask_changes(
        self, prefix: bytes, first: int | None, wait: float, view: View, told: Told
    ) -> Question | None:
        """As `changes`, without a task; None where that has to wait before it can ask."""
        seen = view.seen
        if first is None or not view.stale or (seen is not None and seen.history != self.history):
            return None
        if seen is not None and seen.revision > self.feed.revision:
            return None
        check_prefix(prefix)
        heard = partial(self._heard_of, told)
        return self.feed.ask(prefix, end_of(prefix), max(first - 1, 0), wait, heard)

    def _heard_of(self, told: Told, answer: Piece | GrampusError) -> None:
        if isinstance(answer, GrampusError) or answer.facts:
            told(answer)
        elif self._tasks is None:
            told(Stopped("the server stops: ask another one"))
        else:
            telling = self._heard_nothing(told, answer)
            try:
                self._tasks.create_task(telling)
            except RuntimeError:  # the group is closing
                telling.close()
                told(Stopped("the server stops: ask another one"))

    async def _heard_nothing(self, told: Told, nothing: Piece) -> None:
        try:
            await self._hears()
        except GrampusError as error:
            told(error)
        except asyncio.CancelledError:
            told(Stopped("the server stops: ask another one"))
            raise
        else:
            told(nothing)

    async def _settle(self, view: View) -> None:
        if view.seen is not None:
            if view.seen.history != self.history:
                raise WrongHistory(
                    "the cluster was restored or recovered since, or this server was left behind"
                    " by that: read everything anew, without what was seen before",
                    self.history,
                    self.feed.revision,
                )
            await self.feed.reached(view.seen.revision, CATCH_UP)
        if not view.stale:
            await self._confirm()

    async def _hears(self) -> None:
        """This server hears of what is committed, or did so a moment ago; one look serves all that
        ask meanwhile. Raises NoQuorum, or Stopped."""
        loop = asyncio.get_running_loop()
        async with self._listening:
            at, error = self._heard
            if loop.time() - at >= FRESH:
                error = None
                try:
                    await self._confirm()
                except (NoQuorum, Stopped) as found:
                    error = found
                self._heard = loop.time(), error
        if error is not None:
            raise type(error)(str(error))

    async def _confirm(self) -> None:
        """A majority does answer, and this server has all that was committed before."""
        try:
            async with asyncio.timeout(BARRIER):
                await self._replica.read_barrier()
        except TimeoutError:
            raise NoQuorum(
                f"no majority of servers answered for {BARRIER:g} s: try again, or ask for a"
                " stale read"
            ) from None

    # writes

    async def put(
        self, key: bytes, value: bytes, *, origin: Origin | None = None, ephemeral: bool = False
    ) -> Written:
        """An ephemeral key takes an `origin`, and is gone with its session."""
        answer = await self.writes.propose(self.writes.put(key, value, origin, ephemeral))
        assert isinstance(answer, Written)
        return answer

    async def delete(self, key: bytes, *, origin: Origin | None = None) -> Deleted:
        return await self._delete(key, False, origin)

    async def delete_prefix(self, prefix: bytes, *, origin: Origin | None = None) -> Deleted:
        """In one revision; Refused for very many."""
        return await self._delete(prefix, True, origin)

    async def _delete(self, start: bytes, prefix: bool, origin: Origin | None) -> Deleted:
        answer = await self.writes.propose(self.writes.delete(start, prefix, origin))
        assert isinstance(answer, Deleted)
        return answer

    async def publish(self, topic: str, value: bytes, *, origin: Origin | None = None) -> Written:
        """An event for all who watch `events.topic_prefix(topic)`; kept for a day."""
        key = event_key(topic, self._clock.now(), self._entropy(4))
        return await self.put(key, value, origin=origin)

    async def txn(
        self,
        compare: Sequence[Compare],
        then: Sequence[Op],
        orelse: Sequence[Op] = (),
        *,
        origin: Origin | None = None,
    ) -> TxnDone:
        """One revision: `then` when all comparisons hold, else `orelse`."""
        answer = await self.writes.propose(self.writes.txn(compare, then, orelse, origin))
        assert isinstance(answer, TxnDone)
        return answer

    # sessions

    async def open_session(
        self, name: str, ttl: int, instance: str | None = None, owner: str = ""
    ) -> int:
        """The session's id. `ttl` in ms: it is over when so long no keep-alive was confirmed.

        Asked again with the same random `instance`, it is the same session. `owner`: the node that
        asks, which has so many at most, and whose instances are its own; "" for a user."""
        check_name(name, "session")
        check_ttl(ttl)
        instance = instance or self._entropy(16).hex()
        if not owner:
            return await self._begin(Begin(self._clock.now(), instance, name, ttl))
        instance = f"{owner}/{instance}"
        opened = self._reads.sessions_of(owner, SESSIONS_OF_ONE)
        there = {*opened, *self._opening.get(owner, ())}
        if len(there) >= SESSIONS_OF_ONE and instance not in there:
            raise Refused(
                f"{owner.replace('.', ' ', 1)} has {SESSIONS_OF_ONE} sessions already: close some"
            )
        opening = self._opening.setdefault(owner, Counter())
        opening[instance] += 1
        try:
            return await self._begin(Begin(self._clock.now(), instance, name, ttl))
        finally:
            opening[instance] -= 1
            if not opening[instance]:
                del opening[instance]
            if not opening:
                self._opening.pop(owner, None)

    async def _begin(self, command: Begin) -> int:
        answer = await self.writes.propose(encoded(command))
        assert isinstance(answer, int)
        return answer

    async def keep_alive(self, session: int) -> None:
        """Begins its time anew. Raises SessionUnknown, NotLeader, or NoQuorum when unconfirmed."""
        await self.sessions.keep_alive(session)

    async def close_session(self, session: int) -> None:
        """Its keys are gone when this returns. Raises SessionUnknown when it was over before."""
        await self.writes.propose(encoded(End(self._clock.now(), session, "closed")))

    # locks

    async def lock(self, name: str, session: int, patience: float) -> int:
        """See `locks.take`."""
        return await locks.take(_Held(self, session), name, patience)

    async def unlock(self, name: str, session: int) -> None:
        """Raises LockLost when it was not held any more."""
        await locks.give_up(_Held(self, session), name)


class _Held:
    """The keys as one session sees them on this server."""

    def __init__(self, keys: ClusterServer, session: int) -> None:
        self._keys = keys
        self.session = session
        self._origin = Origin(session)
        #: Of its newest write: a server that does not lead may come there later than the answer.
        self._view = View(stale=True)

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op] = ()
    ) -> TxnDone:
        done = await self._keys.txn(compare, then, orelse, origin=self._origin)
        self._view = View(stale=True, seen=Seen(self._keys.history, done.revision))
        return done

    async def delete(self, key: bytes) -> Deleted:
        return await self._keys.delete(key, origin=self._origin)

    async def range(self, prefix: bytes, limit: int = 100, after: bytes = b"") -> Page:
        return await self._keys.range(prefix, limit, after, self._view)

    async def changes(self, prefix: bytes, first: int) -> Piece:
        return await self._keys.changes(prefix, first, SILENCE, View(stale=True))
