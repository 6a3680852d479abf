"""The metadata center for a process that is no server of it: the same calls as `ClusterServer`.

Rules. What certainly did not happen is tried again, with another server, until its time is over. A
write whose outcome is unknown is an error for its caller, unless it has a number within a session:
then it is asked again under the same number, and happens once. Reads are never older than what this
client has seen. A watch goes on behind the last revision that it has told, wherever it has to go.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from grampus.clock import Clock
from grampus.cluster import requests
from grampus.cluster.commands import Compare, Deleted, Op, TxnDone, Written
from grampus.cluster.core.histories import BEHIND, Histories
from grampus.cluster.core.route import Address, Route
from grampus.cluster.failures import error_of
from grampus.cluster.held_session import HeldSession
from grampus.cluster.limits import check_key, check_prefix, check_ttl, check_txn, check_value
from grampus.cluster.lines import Lines, Peer
from grampus.cluster.queries import Page, Piece
from grampus.cluster.requests import (
    Answer,
    CloseSession,
    DeleteKeys,
    Done,
    Failed,
    Found,
    GetChanges,
    GetKey,
    GetRange,
    GetServers,
    KeepAlive,
    Opened,
    OpenSession,
    PutKey,
    Request,
    Seen,
    ServersAre,
    Told,
    Transact,
    View,
)
from grampus.cluster.server import Got
from grampus.consensus.port import Stopped
from grampus.errors import (
    GrampusError,
    Lagging,
    NoQuorum,
    NotAdmitted,
    NotLeader,
    OutcomeUnknown,
    ProtocolError,
    ServerUnreachable,
    WrongHistory,
)
from grampus.protocol import Hello, KeysAsk, KeysTold, Welcome
from grampus.rpc.address import host_and_port
from grampus.rpc.calls import ConnectionLost, RequestTimedOut
from grampus.rpc.tls import Tls

#: Seconds for a request with all its tries, and for one try where another may follow.
WITHIN, TRY = 10.0, 3.0
#: Seconds after which a server is asked again who the others are, and who leads.
REFRESH = 10.0
#: A server that cannot do it says so within that many seconds.
SURE = 2.5
#: Seconds for a keep-alive at one server; it is asked who leads so often at most.
KEEP, HOPS = 1.5, 3
#: A question for changes waits for so many ms at the server; for so many seconds it is asked again.
WAIT, PATIENCE = 5_000, 60.0
#: Seconds before what did not happen is tried again; a random part up to half is taken off.
PAUSE = 0.1

A = TypeVar("A", bound=Answer)

log = logging.getLogger("grampus.cluster")


class ClusterClient:
    """Connections, and the tasks of its sessions, live in `tasks`; `close` ends them."""

    def __init__(
        self,
        servers: Sequence[Address],
        hello: Callable[[], Hello],
        clock: Clock,
        entropy: Callable[[int], bytes],
        tasks: asyncio.TaskGroup,
        tls: Tls | None = None,
        histories: Histories | None = None,
    ) -> None:
        """`servers`: at least one, by its node port. `hello` is for the lane for keys. `histories`:
        with which servers it goes; who has a folder remembers that there."""
        self._clock = clock
        self._entropy = entropy
        self._tasks = tasks
        self._route = Route(servers)
        self._lines = Lines(hello, self._opened, tasks, tls)
        self._sessions: dict[HeldSession, None] = {}
        self._histories = histories or Histories()
        #: The newest state that was seen; its history is "" before a server has answered.
        self._seen = Seen("", 0)
        #: When a server was last asked who is there.
        self._told = 0.0

    def close(self) -> None:
        """Sessions are left to their time; close those first that have to end now."""
        for session in list(self._sessions):
            session.leave()
        self._lines.close("this client is closed")

    @property
    def seen(self) -> Seen:
        return self._seen

    # reads

    async def get(self, key: bytes, *, stale: bool = False, within: float = WITHIN) -> Got:
        check_key(key)
        found = await self._ask(GetKey(key, self._view(stale)), Found, within)
        return Got(found.revision, found.items[0] if found.items else None)

    async def range(
        self, prefix: bytes, limit: int = 100, after: bytes = b"", *, stale: bool = False
    ) -> Page:
        """Keys that begin with `prefix`, in order, beyond `after`; at most `limit` and a MiB."""
        check_prefix(prefix)
        found = await self._ask(GetRange(prefix, limit, after, self._view(stale)), Found, WITHIN)
        return Page(found.revision, found.items, found.more)

    async def watch(
        self, prefix: bytes, first: int | None = None, *, patience: float = PATIENCE
    ) -> AsyncGenerator[Piece, None]:
        """What changes under `prefix` from revision `first` on, by whole revisions, each once; by
        default from now on: then it begins with a piece that says where that is.

        A piece without facts says how far everything is told. Raises Compacted; ServerUnreachable
        or NoQuorum when no server, or no majority, has answered for `patience` seconds."""
        view = self._view(stale=False)
        while True:
            piece = await self._changes(prefix, first, view, patience)
            yield piece
            first = piece.until + 1
            view = View(stale=True, seen=Seen(self._seen.history, piece.until))

    async def changes(self, prefix: bytes, first: int) -> Piece:
        """What changed from revision `first` on, once something did, or nothing after a while."""
        view = View(stale=True, seen=Seen(self._seen.history, first - 1))
        return await self._changes(prefix, first, view, PATIENCE)

    async def _changes(
        self, prefix: bytes, first: int | None, view: View, patience: float
    ) -> Piece:
        check_prefix(prefix)
        request = GetChanges(prefix, first, WAIT, view)
        told = await self._ask(request, Told, patience, attempt=WAIT / 1000 + KEEP)
        return Piece(told.until, told.facts)

    # writes

    async def put(self, key: bytes, value: bytes, *, within: float = WITHIN) -> Written:
        check_key(key)
        check_value(value)
        return await self._ask(PutKey(key, value), Written, within, once=True)

    async def delete(self, key: bytes) -> Deleted:
        check_key(key)
        return await self._ask(DeleteKeys(key), Deleted, WITHIN, once=True)

    async def delete_prefix(self, prefix: bytes) -> Deleted:
        """In one revision; Refused for very many."""
        check_key(prefix, "prefix")
        return await self._ask(DeleteKeys(prefix, True), Deleted, WITHIN, once=True)

    async def txn(
        self,
        compare: Sequence[Compare],
        then: Sequence[Op],
        orelse: Sequence[Op] = (),
        *,
        within: float = WITHIN,
    ) -> TxnDone:
        """One revision: `then` when all comparisons hold, else `orelse`."""
        check_txn(compare, then, orelse, 0)
        request = Transact(tuple(compare), tuple(then), tuple(orelse))
        return await self._ask(request, TxnDone, within, once=True)

    # sessions

    async def open_session(self, name: str, ttl: int) -> HeldSession:
        """A session that is kept until it is closed, or lost. `ttl` in ms."""
        check_ttl(ttl)
        instance = self._entropy(16).hex()
        sent = self._clock.ticks()
        opened = await self._ask(OpenSession(instance, name, ttl), Opened, WITHIN)
        session = HeldSession(self, opened.session, ttl, sent, self._clock, self._sessions)
        session.kept_by(self._tasks)
        return session

    async def ask_in_session(self, request: Request, kind: type[A]) -> A:
        """For `HeldSession`: the request has a number, so asking again is harmless."""
        return await self._ask(request, kind, WITHIN)

    async def keep_alive(self, session: int, within: float) -> None:
        """Of the leader. Raises SessionUnknown, or that nobody has confirmed it: then the next one
        is asked of another server."""
        body = requests.encode(KeepAlive(session))
        deadline = self._now() + within
        for _ in range(HOPS):
            address = self._route.leader or self._route.home
            try:
                async with asyncio.timeout_at(deadline):
                    await self._once(address, body, Done, min(KEEP, deadline - self._now()))
                return
            except NotLeader as error:
                if not error.leader:
                    self._route.passes_on(address)
                    raise
                self._route.leads(host_and_port(error.leader))
            except NoQuorum:
                self._route.passes_on(address)
                raise
            except (ServerUnreachable, Stopped, OutcomeUnknown, NotAdmitted):
                self._failed(address)
                raise
            except TimeoutError:
                self._failed(address)
                raise ServerUnreachable("no server has answered in time") from None
        raise NotLeader("leaders change faster than they can be followed")

    async def end_session(self, session: int, within: float) -> None:
        await self._ask(CloseSession(session), Done, within)

    # the way there

    async def _ask(
        self,
        request: Request,
        kind: type[A],
        within: float,
        *,
        once: bool = False,
        attempt: float = TRY,
    ) -> A:
        """`once`: it must not be asked again when it may have happened; and it is told at once when
        no server can do it."""
        body, deadline = requests.encode(request), self._now() + within
        #: Seconds that a try needs to be answered for certain, if by an error.
        needs = SURE if once else 0.0
        for_leader = not _served_anywhere(request)
        tries = Tries(writes=kind not in (Found, Told))
        while True:
            address = self._route.best(self._clock.ticks(), for_leader=for_leader)
            if pause := self._route.wait(self._clock.ticks(), address):
                await asyncio.sleep(min(pause / 1000, max(0, deadline - self._now())))
            left = deadline - self._now()
            try:
                return await self._once(address, body, kind, left if once else min(left, attempt))
            except OutcomeUnknown as error:
                if once:
                    raise
                tries.failed(error, address)
                self._failed(address)
            except (NoQuorum, NotLeader, Lagging) as error:
                tries.failed(error, address)
                self._route.passes_on(address)
            except (ServerUnreachable, Stopped, NotAdmitted) as error:
                tries.failed(error, address)
                self._failed(address)
            left = deadline - self._now()
            if left <= needs or (once and tries.hopeless(self._route.known)):
                raise tries.error()
            await asyncio.sleep(min(left, PAUSE * random.uniform(0.5, 1.0)))

    async def _once(self, address: Address, body: bytes, kind: type[A], within: float) -> A:
        """One try with one server. Raises ServerUnreachable when it was not asked, OutcomeUnknown
        when it was and has not answered, and what it answers."""
        line = await self._lines.to(address)
        if line.closed:
            raise ServerUnreachable(f"the connection to {line.peer} is lost")
        try:
            answer = await self._put_to(line, body, within)
        except (ConnectionLost, RequestTimedOut) as error:
            raise OutcomeUnknown(f"it may have happened, or may yet: {error}") from error
        self._route.worked(address)
        if self._now() - self._told > REFRESH:
            self._told = self._now()
            self._tasks.create_task(self._refresh(line))
        if not isinstance(answer, kind):
            raise ProtocolError(f"{line.peer} answered by {type(answer).__name__}")
        self._have_seen(answer)
        return answer

    async def _put_to(self, line: Peer, body: bytes, within: float) -> Answer:
        told = await line.request(KeysAsk(body), max(within, 0.001))
        if not isinstance(told, KeysTold):
            raise ProtocolError(f"{line.peer} answered by {type(told).__name__}")
        answer = requests.decode_answer(told.body)
        if isinstance(answer, Failed):
            raise error_of(answer)
        return answer

    async def _opened(self, line: Peer) -> None:
        """Each server that is talked to is asked who the others are."""
        self._told = self._now()
        answer = await self._put_to(line, requests.encode(GetServers()), KEEP)
        if not isinstance(answer, ServersAre):
            raise ProtocolError(f"{line.peer} answered by {type(answer).__name__}")
        welcome = line.greeting
        revision = welcome.revision if isinstance(welcome, Welcome) else 0
        if not self._histories.goes_with(answer.history, revision):
            line.close(BEHIND)
            raise WrongHistory(f"{line.peer}: {BEHIND}", answer.history, revision)
        if answer.history != self._seen.history:
            if self._seen.history:
                self._lines.keep_only(())  # the others may be of the history that is left
            self._seen = Seen(answer.history, 0)
        self._route.told([host_and_port(each) for each in answer.servers])
        if answer.leader:
            self._route.leads(host_and_port(answer.leader))
        self._lines.keep_only((*self._route.known, *filter(None, (self._route.leader,))))

    async def _refresh(self, line: Peer) -> None:
        """Another server may lead by now."""
        try:
            await self._opened(line)
        except GrampusError as error:
            log.info("who leads is not known: %s", error)

    def _have_seen(self, answer: Answer) -> None:
        match answer:
            case Found(revision) | Written(revision) | Deleted(revision) | TxnDone(revision):
                pass
            case Told(until):
                revision = until
            case _:
                return
        if revision > self._seen.revision:
            self._seen = Seen(self._seen.history, revision)

    def _view(self, stale: bool) -> View:
        return View(stale, self._seen if self._seen.history else None)

    def _failed(self, address: Address) -> None:
        self._route.failed(self._clock.ticks(), address, random.random())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _served_anywhere(request: Request) -> bool:
    """Without asking the leader."""
    match request:
        case GetChanges():
            return True
        case GetKey() | GetRange():
            return request.view.stale
        case _:
            return False


class Tries:
    """What became of the tries of one request, for the error that its caller gets."""

    def __init__(self, *, writes: bool) -> None:
        self._writes = writes
        self._unknown: OutcomeUnknown | None = None
        self._told: GrampusError | None = None
        #: By server, what its newest try came to.
        self._came: dict[Address, GrampusError] = {}

    def failed(self, error: GrampusError, address: Address) -> None:
        self._came[address] = error
        if isinstance(error, OutcomeUnknown):
            self._unknown = error
        elif self._told is None or type(error) is not ServerUnreachable:
            # What a server has said tells more than one that is not there.
            self._told = error

    def hopeless(self, servers: Sequence[Address]) -> bool:
        """A server has been without a majority for longer than an election takes, and no other is
        reached, or knows better."""
        came = [self._came.get(address) for address in servers]
        return any(isinstance(error, NoQuorum) for error in came) and all(
            isinstance(error, NoQuorum | ServerUnreachable | NotAdmitted) for error in came
        )

    def error(self) -> GrampusError:
        """For a write the worst that may be true; for a read what a server said last."""
        if self._unknown is None:
            assert self._told is not None
            return self._told
        if self._writes:
            return self._unknown
        return self._told or ServerUnreachable(f"no server answers in time: {self._unknown}")
