"""What nodes ask the metadata center over a connection, and what they are answered.

The body of `KeysAsk` is one request, that of `KeysTold` one answer, each an array with its tag in
front. Only a server makes a command of it, with its own time. New fields go at the end, with a
default. A watch is a question that is asked again, from where the last answer ended: so a server
holds nothing for who watches, and a slow watcher is not told more than it takes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from grampus.cluster.commands import Compare, Deleted, Op, Origin, TxnDone, Written
from grampus.cluster.values import KeysChanged, KeyValue
from grampus.errors import ProtocolError
from grampus.model.number import Count


class Seen(Struct, frozen=True, array_like=True):
    """The newest state that a client knows: its next answer is not older."""

    history: str
    revision: int


class View(Struct, frozen=True, array_like=True):
    """How new a read has to be: as of now, or for `stale` whatever the server has."""

    stale: bool = False
    seen: Seen | None = None


NOW = View()


class GetKey(Struct, frozen=True, array_like=True, tag="get"):
    """Answered by Found, with one key or none."""

    key: bytes
    view: View = NOW


class GetRange(Struct, frozen=True, array_like=True, tag="range"):
    """Keys that begin with `prefix`, beyond `after`. Answered by Found."""

    prefix: bytes
    limit: Count
    after: bytes = b""
    view: View = NOW


class GetChanges(Struct, frozen=True, array_like=True, tag="changes"):
    """What has changed under `prefix` from revision `first` on; waits for it, for at most `wait`
    ms. Without `first` answered at once, by the place to go on from. Answered by Told."""

    prefix: bytes
    first: int | None
    wait: int
    view: View = NOW


class PutKey(Struct, frozen=True, array_like=True, tag="put"):
    key: bytes
    value: bytes
    origin: Origin | None = None
    ephemeral: bool = False


class DeleteKeys(Struct, frozen=True, array_like=True, tag="delete"):
    """The key `start`, or with `prefix` all that begin with it."""

    start: bytes
    prefix: bool = False
    origin: Origin | None = None


class Transact(Struct, frozen=True, array_like=True, tag="txn"):
    compare: tuple[Compare, ...]
    then: tuple[Op, ...]
    orelse: tuple[Op, ...] = ()
    origin: Origin | None = None


class OpenSession(Struct, frozen=True, array_like=True, tag="open-session"):
    """Answered by Opened. Asked again with the same random `instance`, it is the same session."""

    instance: Annotated[str, Meta(max_length=128)]
    name: str
    #: In ms.
    ttl: int


class KeepAlive(Struct, frozen=True, array_like=True, tag="keep-alive"):
    """Only the leader answers by Done: others say who that is."""

    session: int


class CloseSession(Struct, frozen=True, array_like=True, tag="close-session"):
    session: Count


class GetServers(Struct, frozen=True, array_like=True, tag="servers"):
    """Answered by ServersAre."""


Request = (
    GetKey
    | GetRange
    | GetChanges
    | PutKey
    | DeleteKeys
    | Transact
    | OpenSession
    | KeepAlive
    | CloseSession
    | GetServers
)


class Found(Struct, frozen=True, array_like=True, tag="found"):
    """`revision` is that of the ledger at which it was read. `more`: there are further keys."""

    revision: int
    items: tuple[KeyValue, ...]
    more: bool = False


class Told(Struct, frozen=True, array_like=True, tag="told"):
    """Whole revisions, in order. `until`: everything up to it that matches was told."""

    until: int
    facts: tuple[KeysChanged, ...]


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    session: int


class Done(Struct, frozen=True, array_like=True, tag="done"):
    pass


class ServersAre(Struct, frozen=True, array_like=True, tag="servers-are"):
    """HOST:PORT where the servers listen for nodes."""

    history: str
    servers: tuple[str, ...]
    #: Of the one that leads; empty when it is not known.
    leader: str = ""


class Failed(Struct, frozen=True, array_like=True, tag="failed"):
    """An error, by its kind (`failures`)."""

    kind: str
    text: str
    #: Of `compacted`: the first revision that is known. Of `overloaded`: seconds to wait.
    number: int = 0
    #: Of `not-leader`: HOST:PORT where the leader listens for nodes.
    leader: str = ""


Answer = Found | Told | Written | Deleted | TxnDone | Opened | Done | ServersAre | Failed

_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS = msgspec.msgpack.Decoder(Request)
_ANSWERS = msgspec.msgpack.Decoder(Answer)


#: How the encoded writes begin, behind the length of their arrays.
_WRITES = (b"\xa3put", b"\xa3txn", b"\xa6delete")


def is_write(data: bytes) -> bool:
    """Whether the encoded request is answered by a commit, by a look at its tag."""
    return data.startswith(_WRITES, 1)


def is_for_changes(data: bytes) -> bool:
    """Whether the encoded request is a GetChanges."""
    return data.startswith(b"\xa7changes", 1)


def encode(body: Request | Answer) -> bytes:
    return _ENCODER.encode(body)


def decode_request(data: bytes) -> Request:
    """Raises ProtocolError."""
    try:
        request: Request = _REQUESTS.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a request for keys that cannot be read: {error!s:.200}") from None
    return request


def decode_answer(data: bytes) -> Answer:
    """Raises ProtocolError."""
    try:
        answer: Answer = _ANSWERS.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"an answer about keys that cannot be read: {error!s:.200}") from None
    return answer
