"""The metadata center at the node port: what nodes ask over the lane for keys, and the answers.

Rule: who may speak here is looked at by whoever opens the door; each question is answered, if by
an error. Nothing is kept for anybody but questions that wait: a watch is a question, too.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Protocol

from grampus.cluster import requests
from grampus.cluster.failures import failed
from grampus.cluster.feed import Question
from grampus.cluster.queries import Piece
from grampus.cluster.requests import (
    Answer,
    CloseSession,
    DeleteKeys,
    Done,
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
)
from grampus.cluster.server import ClusterServer
from grampus.errors import GrampusError, NotLeader, ProtocolError
from grampus.protocol import Hello, KeysAsk, KeysTold, Message
from grampus.rpc.connection import Connection

log = logging.getLogger("grampus.cluster")

Peer = Connection[Message]
#: The lane of a Hello.
KEYS = "keys"
#: Milliseconds that one question for changes waits at most.
LONGEST_WAIT = 30_000


class Directory(Protocol):
    """Where servers listen for nodes, as HOST:PORT."""

    def leader(self) -> str:
        """Empty when it is not known."""
        ...

    def servers(self) -> tuple[str, ...]: ...


class KeyDesk:
    """The Handler of connections of the lane for keys."""

    def __init__(self, keys: ClusterServer, directory: Directory) -> None:
        self._keys = keys
        self._directory = directory
        #: Those that wait for a change, by their numbers.
        self._questions: dict[Peer, dict[int, Question]] = {}
        #: The newest change that was told, and how: many are told the same.
        self._newest: tuple[Piece, KeysTold] | None = None

    @property
    def seen(self) -> Seen:
        """The history that is served here, and its newest revision."""
        return self._keys.seen

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        raise ProtocolError("on the lane for keys there are only questions")

    async def request(self, connection: Peer, message: Message) -> Message:
        if not isinstance(message, KeysAsk):
            raise ProtocolError(f"{type(message).__name__} is no question about keys")
        return KeysTold(requests.encode(await self.answer(message.body, _owner(connection))))

    def take(self, connection: Peer, number: int, message: Message) -> bool:
        """Writes are taken at once, so that all of one turn are proposed together, and questions
        for changes, of which there are many; True if so."""
        if not isinstance(message, KeysAsk):
            return False
        if requests.is_for_changes(message.body):
            return self._take_question(connection, number, message.body)
        if not requests.is_write(message.body):
            return False
        try:
            command = self._command(requests.decode_request(message.body))
        except GrampusError as error:
            self._tell(connection, number, error)
        else:
            self._keys.writes.soon(command, partial(self._tell, connection, number))
        return True

    def _take_question(self, connection: Peer, number: int, body: bytes) -> bool:
        told = partial(self._tell_change, connection, number)
        try:
            request = requests.decode_request(body)
            assert isinstance(request, GetChanges)
            question = self._keys.ask_changes(
                request.prefix, request.first, _seconds(request.wait), request.view, told
            )
        except GrampusError as error:
            self._tell(connection, number, error)
            return True
        if question is not None and question.timer is not None:
            self._questions.setdefault(connection, {})[number] = question
        return question is not None

    def _tell_change(self, connection: Peer, number: int, answer: Piece | GrampusError) -> None:
        self._questions.get(connection, {}).pop(number, None)
        if isinstance(answer, GrampusError):
            self._tell(connection, number, answer)
            return
        if self._newest is None or self._newest[0] is not answer:
            told = KeysTold(requests.encode(Told(answer.until, answer.facts)))
            self._newest = answer, told
        connection.respond(number, self._newest[1])

    def _command(self, request: Request) -> bytes:
        writes = self._keys.writes
        match request:
            case PutKey(key, value, origin, ephemeral):
                return writes.put(key, value, origin, ephemeral)
            case DeleteKeys(start, prefix, origin):
                return writes.delete(start, prefix, origin)
            case Transact(compare, then, orelse, origin):
                return writes.txn(compare, then, orelse, origin)
            case _:
                raise ProtocolError(f"{type(request).__name__} is no write")

    def _tell(self, connection: Peer, number: int, answer: object) -> None:
        if isinstance(answer, NotLeader):
            answer = NotLeader(str(answer), self._directory.leader())
        if isinstance(answer, GrampusError):
            answer = failed(answer)
        assert isinstance(answer, Answer)
        connection.respond(number, KeysTold(requests.encode(answer)))

    def closed(self, connection: Peer, reason: str) -> None:
        for question in self._questions.pop(connection, {}).values():
            self._keys.feed.forget(question)

    async def answer(self, body: bytes, owner: str = "") -> requests.Answer:
        """`owner` is the node that asks."""
        try:
            return await self._answer(requests.decode_request(body), owner)
        except NotLeader as error:
            return failed(NotLeader(str(error), self._directory.leader()))
        except GrampusError as error:
            return failed(error)
        except Exception:
            log.exception("a request for keys: a bug in what answers it")
            return failed(GrampusError("a defect of the server: its log has the details"))

    async def _answer(self, request: Request, owner: str) -> requests.Answer:
        keys = self._keys
        match request:
            case GetKey(key, view):
                got = await keys.get(key, view)
                return Found(got.revision, () if got.item is None else (got.item,))
            case GetRange(prefix, limit, after, view):
                page = await keys.range(prefix, limit, after, view)
                return Found(page.revision, page.items, page.more)
            case GetChanges(prefix, first, wait, view):
                piece = await keys.changes(prefix, first, _seconds(wait), view)
                return Told(piece.until, piece.facts)
            case KeepAlive(session):
                await keys.keep_alive(session)
                return Done()
            case OpenSession(instance, name, ttl):
                return Opened(await keys.open_session(name, ttl, instance, owner))
            case CloseSession(session):
                await keys.close_session(session)
                return Done()
            case GetServers():
                return ServersAre(keys.history, self._directory.servers(), self._directory.leader())
            case _:  # a write that was not taken: there were too many
                answer = await keys.writes.propose(self._command(request))
                assert isinstance(answer, Answer)
                return answer


def _owner(connection: Peer) -> str:
    hello = connection.greeting
    return f"{hello.role}.{hello.node}" if isinstance(hello, Hello) else ""


def _seconds(wait: int) -> float:
    return min(max(wait, 0), LONGEST_WAIT) / 1000
